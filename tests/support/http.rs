//! An HTTP/1.1 client that keeps every byte: no pool, no redirects, no decoding but the chunks'.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than any answer of a healthy run; a hang ends as an error instead of as a stuck suite.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In their order, as they were written.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// False if the connection ended before the body did.
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The headers that describe the body, sorted; names in lower case. A scraper passes on no other of an exporter's.
    pub(crate) fn body_headers(&self) -> Vec<(String, String)> {
        const DESCRIBING: [&str; 4] = ["content-encoding", "content-length", "content-type", "vary"];
        let mut headers = end_to_end(&self.headers, &[]);
        headers.retain(|(name, _)| DESCRIBING.contains(&name.as_str()));
        headers
    }
}

/// `GET path` with these headers besides `Host`, on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    request("GET", address, path, headers)
}

/// As [`get`], with another method.
pub(crate) fn request(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    let mut body = Vec::new();
    let mut exchange = Exchange::begin(method, address, path, headers)?;
    let complete = exchange.read_body(|bytes| body.extend_from_slice(bytes));
    Ok(Answer { status: exchange.status, headers: exchange.headers, body, complete })
}

/// As [`request`], with a body.
pub(crate) fn request_with(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let len = body.len().to_string();
    let mut stream = send(method, address, path, &[headers, &[("Content-Length", len.as_str())]].concat())?;
    // A server may refuse a long body before it was read.
    let sent = stream.write_all(body);
    let mut answer = Vec::new();
    let mut exchange = Exchange::on(BufReader::new(stream)).map_err(|error| sent.err().unwrap_or(error))?;
    let complete = exchange.read_body(|bytes| answer.extend_from_slice(bytes));
    Ok(Answer { status: exchange.status, headers: exchange.headers, body: answer, complete })
}

/// A request whose answer has begun: the head is read, the body is not. Dropping it closes the connection.
pub(crate) struct Exchange {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

impl Exchange {
    pub(crate) fn begin(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Self> {
        Self::on(BufReader::new(send(method, address, path, headers)?))
    }

    /// Reads the head of the answer to a request that was sent on this connection.
    pub(crate) fn on(mut reader: BufReader<TcpStream>) -> io::Result<Self> {
        let status_line = read_line(&mut reader)?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {status_line:?}")))?;
        let headers = read_headers(&mut reader)?;
        Ok(Self { status, headers, reader })
    }

    /// The connection, for the next request once the body has been read.
    pub(crate) fn into_connection(self) -> BufReader<TcpStream> {
        self.reader
    }

    /// Passes the body to `act` piece by piece; true if the body ended as its framing requires.
    pub(crate) fn read_body(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let value = |name: &str| self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        if value("transfer-encoding").is_some_and(|(_, coding)| coding.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks(&mut each).unwrap_or(false);
        }
        match value("content-length").map(|(_, len)| len.parse().expect("a length")) {
            Some(len) => self.read_exactly(len, &mut each).unwrap_or(false),
            // Until the connection's end (RFC 9112, 6.3): a cut body looks like a whole one here.
            None => self.read_exactly(u64::MAX, &mut each).is_ok(),
        }
    }

    fn read_chunks(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        loop {
            let size = read_line(&mut self.reader)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let len = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if len == 0 {
                return read_headers(&mut self.reader).map(|_trailers| true);
            }
            if !self.read_exactly(len, each)? || !read_line(&mut self.reader)?.is_empty() {
                return Ok(false);
            }
        }
    }

    fn read_exactly(&mut self, mut left: u64, each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.reader.read(&mut buffer[..most])?;
            if read == 0 {
                return Ok(false);
            }
            each(&buffer[..read]);
            left -= read as u64;
        }
        Ok(true)
    }
}

/// Sends the request and hands the connection over before anything is read from it.
pub(crate) fn send(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, LONGEST)?;
    stream.set_read_timeout(Some(LONGEST))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Header lines up to the empty one. A connection that ends before it is an error.
pub(crate) fn read_headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("no header: {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A line without its CRLF.
pub(crate) fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    let text = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    String::from_utf8(text.to_vec()).map_err(io::Error::other)
}

/// What is left of headers without the hop-by-hop ones and `besides`, sorted; names in lower case.
pub(crate) fn end_to_end(headers: &[(String, String)], besides: &[&str]) -> Vec<(String, String)> {
    const HOP_BY_HOP: [&str; 8] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authenticate",
    ];
    let mut kept: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()) && !besides.contains(&name.as_str()))
        .collect();
    kept.sort();
    kept
}
