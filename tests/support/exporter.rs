//! An exporter that gives each path the reply that the test chose, well formed or not, and records the requests.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{
    eventually, eventually_true,
    http::{read_headers, read_line},
};

const TEXT: [(&str, &str); 1] = [("Content-Type", "text/plain; version=0.0.4")];
const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

/// How a path answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, headers and a body with its `Content-Length`.
    Whole { status: &'static str, headers: Vec<(&'static str, &'static str)>, body: Vec<u8> },
    /// 200 with `Transfer-Encoding: chunked`.
    Chunked { headers: Vec<(&'static str, &'static str)>, chunks: Vec<Vec<u8>> },
    /// Promises `len` bytes, sends `sent` and closes.
    CutLength { len: usize, sent: Vec<u8> },
    /// Sends a chunk and closes without the last one.
    CutChunked { sent: Vec<u8> },
    /// Sends as many metric lines as fit into `len` bytes, made up on the way.
    Generated { len: usize },
    /// Reads the request and never answers.
    Hang,
    /// Waits for [`Exporter::open_gate`], then answers.
    Gated(Box<Reply>),
}

impl Reply {
    /// 200 and the Prometheus text format.
    pub(crate) fn text(body: &str) -> Self {
        let headers = vec![("Content-Type", "text/plain; version=0.0.4; charset=utf-8")];
        Self::Whole { status: "200 OK", headers, body: body.as_bytes().to_vec() }
    }
}

impl Recorded {
    /// The value of a header, if it came.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// Listens on a port of 127.0.0.1 for as long as the test process lives, keeping connections alive as Go's exporters do.
#[derive(Clone)]
pub(crate) struct Exporter {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    replies: Mutex<HashMap<String, Reply>>,
    requests: Mutex<Vec<Recorded>>,
    /// Paths whose requester went away before the answer was out.
    abandoned: Mutex<Vec<String>>,
    gate_open: Mutex<bool>,
    gate: Condvar,
}

impl Exporter {
    /// Starts with these paths; every other path answers 404.
    pub(crate) fn start(replies: impl IntoIterator<Item = (&'static str, Reply)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        for (path, reply) in replies {
            state.replies.lock().expect("sound").insert(path.to_owned(), reply);
        }
        let exporter = Self { address, state };
        let served = exporter.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = served.state.clone();
                // An error is a requester that went away, which `abandoned` has noted where it matters.
                thread::spawn(move || state.serve(stream));
            }
        });
        exporter
    }

    /// From now on that path answers so.
    pub(crate) fn answer(&self, path: &str, reply: Reply) {
        self.state.replies.lock().expect("sound").insert(path.to_owned(), reply);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests for a path so far.
    pub(crate) fn requests(&self, path: &str) -> Vec<Recorded> {
        let requests = self.state.requests.lock().expect("sound");
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// All requests so far, for whatever path.
    pub(crate) fn all_requests(&self) -> Vec<Recorded> {
        self.state.requests.lock().expect("sound").clone()
    }

    /// Waits for the first request for a path that nobody asked for before.
    #[track_caller]
    pub(crate) fn wait_asked(&self, path: &str) -> Recorded {
        eventually(&format!("the exporter is asked for {path}"), super::SOON, || self.requests(path).pop())
    }

    /// Waits until a requester of the path has gone away before its answer was out.
    #[track_caller]
    pub(crate) fn wait_abandoned(&self, path: &str) {
        let abandoned = || self.state.abandoned.lock().expect("sound").iter().any(|known| known == path);
        eventually_true(&format!("the request for {path} is given up"), super::SOON, abandoned);
    }

    /// Lets every [`Reply::Gated`] answer, now and later.
    pub(crate) fn open_gate(&self) {
        *self.state.gate_open.lock().expect("sound") = true;
        self.state.gate.notify_all();
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let request_line = read_line(&mut reader)?;
            let headers = read_headers(&mut reader)?;
            let (method, rest) = request_line.split_once(' ').unwrap_or_default();
            let (method, path) = (method.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned());
            self.requests.lock().expect("sound").push(Recorded { method, path: path.clone(), headers });
            let reply = self.replies.lock().expect("sound").get(path.split('?').next().unwrap_or_default()).cloned();
            let reply = reply.unwrap_or(Reply::Whole { status: "404 Not Found", headers: vec![], body: vec![] });
            match self.answer(&reply, &mut stream, &mut reader) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.abandoned.lock().expect("sound").push(path);
                    return Err(error);
                }
            }
        }
    }

    /// True if the connection goes on; an error if the requester went away.
    fn answer(&self, reply: &Reply, stream: &mut TcpStream, reader: &mut BufReader<TcpStream>) -> io::Result<bool> {
        match reply {
            Reply::Whole { status, headers, body } => {
                let length = body.len().to_string();
                stream.write_all(head(status, headers, ("Content-Length", &length)).as_bytes())?;
                stream.write_all(body)?;
            }
            Reply::Chunked { headers, chunks } => {
                stream.write_all(head("200 OK", headers, CHUNKED).as_bytes())?;
                for bytes in chunks {
                    write_chunk(stream, bytes)?;
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            Reply::CutLength { len, sent } => {
                let length = len.to_string();
                stream.write_all(head("200 OK", &TEXT, ("Content-Length", &length)).as_bytes())?;
                stream.write_all(sent)?;
                return Ok(false);
            }
            Reply::CutChunked { sent } => {
                stream.write_all(head("200 OK", &TEXT, CHUNKED).as_bytes())?;
                write_chunk(stream, sent)?;
                return Ok(false);
            }
            Reply::Generated { len } => {
                let length = len.to_string();
                stream.write_all(head("200 OK", &TEXT, ("Content-Length", &length)).as_bytes())?;
                generate(*len, |block| stream.write_all(block))?;
            }
            Reply::Hang => self.wait_while_asked(reader, |_| false)?,
            Reply::Gated(then) => {
                self.wait_while_asked(reader, |open| open)?;
                return self.answer(then, stream, reader);
            }
        }
        Ok(true)
    }

    /// Waits for `done`, which receives whether the gate is open; an error as soon as the requester is gone.
    fn wait_while_asked(&self, reader: &mut BufReader<TcpStream>, done: impl Fn(bool) -> bool) -> io::Result<()> {
        let look_every = Duration::from_millis(20);
        reader.get_ref().set_read_timeout(Some(Duration::from_millis(1)))?;
        let give_up = Instant::now() + Duration::from_secs(120);
        let mut open = self.gate_open.lock().expect("sound");
        while !done(*open) {
            match reader.fill_buf() {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Ok(bytes) if !bytes.is_empty() => {}
                _gone => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            if Instant::now() > give_up {
                return Err(io::ErrorKind::TimedOut.into());
            }
            open = self.gate.wait_timeout(open, look_every).expect("sound").0;
        }
        reader.get_ref().set_read_timeout(None)
    }
}

/// The body of [`Reply::Generated`], block by block.
pub(crate) fn generate(len: usize, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut left = len;
    let mut line_number = 0_u64;
    while left > 0 {
        let mut block = Vec::with_capacity(64 * 1024);
        while block.len() < 60 * 1024 {
            block.extend_from_slice(format!("generated_total{{line=\"{line_number:010}\"}} 1\n").as_bytes());
            line_number += 1;
        }
        block.truncate(left);
        each(&block)?;
        left -= block.len();
    }
    Ok(())
}

fn head(status: &str, headers: &[(&str, &str)], framing: (&str, &str)) -> String {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers.iter().chain([&framing]) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
}

fn write_chunk(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
    stream.write_all(bytes)?;
    stream.write_all(b"\r\n")
}
