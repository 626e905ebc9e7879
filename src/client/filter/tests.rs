use http_body_util::BodyExt;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::client::source::{from_async, tests::text_of};

const KINDS: [&str; 6] = ["counter", "gauge", "histogram", "summary", "info", "none"];

/// A family as a writer of one of the formats puts it.
#[derive(Clone, Debug)]
struct Written {
    /// What a filter may call it.
    names: Vec<String>,
    lines: String,
}

/// Families of distinct names, so that two that follow each other are two.
fn written(open_metrics: bool) -> impl Strategy<Value = Vec<Written>> {
    let one = (select(&KINDS[..]), any::<bool>(), "[a-c]{1,2}(_total|_info|_sum)?", "[ -~é]{0,9}", 1..4_usize);
    vec(one, 0..8).prop_map(move |families| {
        let numbered = families.into_iter().enumerate();
        numbered
            .map(|(n, (kind, help, name, text, samples))| {
                family(open_metrics, kind, help, &format!("{name}_{n}"), &text, samples)
            })
            .collect()
    })
}

fn family(open_metrics: bool, kind: &str, help: bool, name: &str, text: &str, samples: usize) -> Written {
    let suffix = match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    let with_suffix = format!("{name}{suffix}");
    let declared = if open_metrics { name } else { &with_suffix };
    let text = text.replace(['\\', '\n', '"'], " ");
    let mut lines = String::new();
    if help {
        lines += &format!("# HELP {declared} {text}\n");
    }
    if kind != "none" {
        lines += &format!("# TYPE {declared} {kind}\n");
    }
    let series: &[&str] = match kind {
        "histogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["", "_sum", "_count"],
        _ => &[suffix],
    };
    for sample in 0..samples {
        for series in series {
            lines += &format!("{name}{series}{{n=\"{sample}\",text=\"{text}\"}} {sample}\n");
        }
    }
    Written { names: vec![name.to_owned(), with_suffix], lines }
}

fn pattern() -> impl Strategy<Value = Option<String>> {
    prop::option::of("([a-c]|\\.\\*|_total|_info|_sum|_[0-7]|\\||[ab]+){1,4}|[a-c]\\.\\*")
}

/// What passes of an exposition that comes in pieces cut at these places.
fn filtered(filter: &Filter, exposition: &[u8], cuts: &[usize]) -> Result<Vec<u8>, FilterError> {
    let mut cuts: Vec<usize> =
        cuts.iter().map(|cut| cut % (exposition.len() + 1)).chain([0, exposition.len()]).collect();
    cuts.sort_unstable();
    let (mut families, mut passed) = (Families::new(filter.clone()), BytesMut::new());
    for cut in cuts.windows(2) {
        families.take(&exposition[cut[0]..cut[1]], &mut passed)?;
    }
    families.end(&mut passed);
    Ok(passed.to_vec())
}

proptest! {
    #[test]
    fn families_that_pass_are_whole_and_byte_identical_and_nothing_else_remains(
        (open_metrics, families) in any::<bool>().prop_flat_map(|format| (Just(format), written(format))),
        keep in pattern(), drop in pattern(), cuts in vec(any::<usize>(), 0..9),
    ) {
        let filter = Filter::new(keep.as_deref(), drop.as_deref());
        prop_assume!(filter.is_ok());
        let matches = |pattern: &str, names: &[String]| {
            let whole = Regex::new(&format!("^(?:{pattern})$")).unwrap();
            names.iter().any(|name| whole.is_match(name.as_bytes()))
        };
        let end = if open_metrics { "# EOF\n" } else { "" };
        let all: String = families.iter().map(|family| family.lines.as_str()).chain([end]).collect();
        let expected: String = families
            .iter()
            .filter(|family| keep.as_deref().is_none_or(|keep| matches(keep, &family.names)))
            .filter(|family| !drop.as_deref().is_some_and(|drop| matches(drop, &family.names)))
            .map(|family| family.lines.as_str())
            .chain([end])
            .collect();
        let passed = filtered(&filter.unwrap(), all.as_bytes(), &cuts).unwrap();
        prop_assert_eq!(String::from_utf8(passed).unwrap(), expected);
    }

    #[test]
    fn whatever_the_bytes_what_passes_are_lines_of_them_in_order_wherever_they_are_cut(
        lines in vec("(# (TYPE|HELP|UNIT|EOF) ?)?[ab\"{}\\\\ =\t\r#]{0,6}( counter)?(\\PC|\n)?\n?", 0..12),
        cuts in vec(any::<usize>(), 0..9),
    ) {
        let all = lines.concat();
        let filter = Filter::new(None, Some("a")).unwrap();
        let passed = filtered(&filter, all.as_bytes(), &cuts).unwrap();
        prop_assert_eq!(&passed, &filtered(&filter, all.as_bytes(), &[]).unwrap());
        let mut left = all.split_inclusive('\n');
        for line in String::from_utf8(passed).unwrap().split_inclusive('\n') {
            prop_assert!(left.any(|candidate| candidate == line), "{line:?}");
        }
    }
}

#[test]
fn patterns_match_whole_names_and_a_broken_one_is_refused_with_its_text() {
    let passed = |keep, drop| {
        let filter = Filter::new(keep, drop).unwrap();
        String::from_utf8(filtered(&filter, b"a 1\nab 2\nb 3\n", &[]).unwrap()).unwrap()
    };
    assert_eq!(passed(Some("a"), None), "a 1\n");
    assert_eq!(passed(Some("a|b"), None), "a 1\nb 3\n");
    assert_eq!(passed(Some("a.*"), Some("b|ab")), "a 1\n");
    assert_eq!(passed(None, Some("")), "a 1\nab 2\nb 3\n");
    assert!(Filter::new(None, None).unwrap().passes_all());
    assert_eq!(Filter::new(Some("a"), None).unwrap(), Filter::new(Some("a"), None).unwrap());
    assert_ne!(Filter::new(Some("a"), None).unwrap(), Filter::new(None, Some("a")).unwrap());
    for (broken, reason) in
        [("a(", "unclosed group"), ("a)|(b", "unopened group"), ("*", "repetition operator missing expression")]
    {
        let error = Filter::new(None, Some(broken)).unwrap_err();
        assert_eq!(error.to_string(), format!("{broken} is not a regular expression: {reason}"));
    }
}

#[test]
fn lines_in_front_of_a_type_go_the_way_of_their_family() {
    let exposition = "# a comment\n\n# HELP hits Hits.\n# UNIT hits hits\n# TYPE hits counter\nhits_total 1\n\
                      # HELP lone Without samples.\n# HELP size Size.\n# TYPE size gauge\nsize 2\n# EOF\n";
    let passed = |filter: Filter| String::from_utf8(filtered(&filter, exposition.as_bytes(), &[]).unwrap()).unwrap();
    assert_eq!(
        passed(Filter::new(Some("hits_total"), None).unwrap()),
        "# HELP hits Hits.\n# UNIT hits hits\n# TYPE hits counter\nhits_total 1\n# EOF\n"
    );
    assert_eq!(
        passed(Filter::new(None, Some("hits")).unwrap()),
        "# HELP lone Without samples.\n# HELP size Size.\n# TYPE size gauge\nsize 2\n# EOF\n"
    );
}

#[test]
fn a_line_without_end_fails_instead_of_filling_memory() {
    let filter = Filter::new(None, Some("a")).unwrap();
    for beginning in ["b{c=\"", "# HELP b "] {
        let (mut families, mut passed) = (Families::new(filter.clone()), BytesMut::new());
        let endless = "x".repeat(60_000);
        let failed = std::iter::once(beginning)
            .chain(std::iter::repeat_n(endless.as_str(), 40))
            .find_map(|piece| families.take(piece.as_bytes(), &mut passed).err());
        assert!(matches!(failed, Some(FilterError::TooLong { .. })), "{beginning}");
        assert!(passed.is_empty());
    }
    let helps = "# HELP b again\n".repeat(100_000);
    assert!(matches!(filtered(&filter, helps.as_bytes(), &[]), Err(FilterError::TooLong { .. })));
}

#[tokio::test]
async fn a_source_is_asked_for_text_that_is_not_encoded() {
    let asked = |accept: &'static [&'static str]| async move {
        let echo = from_async(|request| async move {
            let accept: Vec<_> = request.headers.get_all(ACCEPT).iter().map(|value| value.to_str().unwrap()).collect();
            let text = format!("{} / {}\n", accept.join(" + "), request.headers[ACCEPT_ENCODING].to_str().unwrap());
            Ok::<_, std::convert::Infallible>(text)
        });
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        headers.extend(accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))));
        let passing = Filtered::new(echo, Filter::new(None, Some("dropped")).unwrap());
        text_of(passing.pull(request(headers)).await.unwrap()).await
    };
    let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                      application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let text = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1 / identity\n";
    assert_eq!(asked(&[]).await, "text/plain;version=0.0.4 / identity\n");
    assert_eq!(asked(&["*/*"]).await, "text/plain;version=0.0.4 / identity\n");
    assert_eq!(asked(&["application/json", "Text/Plain;q=0.5"]).await, "Text/Plain;q=0.5 / identity\n");
    let asked = asked(Box::leak(Box::new([prometheus]))).await;
    assert_eq!(asked, text);
}

#[tokio::test]
async fn an_answer_that_is_no_plain_text_fails_and_a_noop_filter_touches_nothing() {
    let answering = |name: &'static str, value: &'static str| {
        from_async(move |request| async move {
            let mut exposition = Exposition::from(format!("a {:?}\n", request.headers.get(ACCEPT)));
            exposition.headers.insert(name, HeaderValue::from_static(value));
            Ok::<_, std::convert::Infallible>(exposition)
        })
    };
    let pulled = async |source, filter| Filtered::new(source, filter).pull(request(HeaderMap::new())).await;
    let some = || Filter::new(None, Some("b")).unwrap();
    for (name, value) in [("content-type", "application/vnd.google.protobuf"), ("content-encoding", "gzip")] {
        assert!(pulled(answering(name, value), some()).await.unwrap_err().to_string().contains(value), "{value}");
        let untouched = pulled(answering(name, value), Filter::default()).await.unwrap();
        assert_eq!(untouched.headers[name], value);
        assert_eq!(text_of(untouched).await, "a None\n");
    }
    let shortened = pulled(answering("content-length", "7"), some()).await.unwrap();
    assert!(!shortened.headers.contains_key(CONTENT_LENGTH));
}

#[tokio::test]
async fn a_long_body_in_one_piece_passes_piece_by_piece() {
    let text: String = (0..100_000).map(|n| format!("{}_{n} 1\n", if n % 2 == 0 { "kept" } else { "gone" })).collect();
    let kept: String = text.lines().filter(|line| line.starts_with("kept")).map(|line| format!("{line}\n")).collect();
    let source = from_async(move |_| {
        let text = text.clone();
        async { Ok::<_, std::convert::Infallible>(text) }
    });
    let filtered = Filtered::new(source, Filter::new(Some("kept_.*"), None).unwrap());
    let mut body = filtered.pull(request(HeaderMap::new())).await.unwrap().body;
    let mut passed = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= 2 * PIECE);
        passed.extend_from_slice(&data);
    }
    assert!(passed == kept.as_bytes());
}

fn request(headers: HeaderMap) -> PullRequest {
    PullRequest::new(headers, None, tokio::time::Instant::now() + std::time::Duration::from_secs(60))
}
