//! Answers for people: one line of plain text.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::telemetry::ExpositionFormat;

/// The content type of a plain answer.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Most characters of a line: an error's text may quote what a stranger sent.
const MAX_LINE: usize = 500;

/// A status with one line for the reason. Control characters are escaped, and a long text is cut.
pub(crate) fn line(status: StatusCode, text: impl AsRef<str>) -> Response {
    let mut line = String::new();
    for c in text.as_ref().chars().take(MAX_LINE) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    (status, [(header::CONTENT_TYPE, TEXT)], line).into_response()
}

pub(crate) fn page(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// 404 with the list of endpoints.
pub(crate) fn not_found(endpoints: &str) -> Response {
    let body = format!("nothing here\n\n{endpoints}");
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, TEXT)], body).into_response()
}

/// 405 with the methods that are answered.
#[cfg(feature = "scraper")]
pub(crate) fn only(methods: &'static str) -> Response {
    let mut response = line(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods} here"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// Own metrics, in the format that suits the request.
pub(crate) fn exposition(headers: &HeaderMap, encode: impl FnOnce(ExpositionFormat) -> String) -> Response {
    let format = ExpositionFormat::asked_for(headers);
    let content_type = HeaderValue::from_static(format.content_type());
    ([(header::CONTENT_TYPE, content_type)], encode(format)).into_response()
}

/// 405 for any other method of a route; axum adds the `Allow` header.
pub(crate) async fn method_not_allowed(method: Method) -> Response {
    line(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not served here"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_line_is_one_line_whatever_it_is_made_of() {
        let response = line(StatusCode::BAD_GATEWAY, format!("a\r\nb\u{1b}[1m{}", "x".repeat(5000)));
        let text = response.into_body().collect().await.expect("a body").to_bytes();
        let text = std::str::from_utf8(&text).expect("text");
        assert!(text.starts_with("a\\r\\nb\\u{1b}[1mxxx") && text.len() < 600);
        assert_eq!(text.find('\n'), Some(text.len() - 1));
    }
}
