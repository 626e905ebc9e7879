//! An HTTP proxy that knows `CONNECT` and nothing else, with names of its own, and a log.

use std::{
    io::{self, BufReader, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::http::{read_headers, read_line};

/// How a `CONNECT` is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// With a tunnel, if the address is known.
    Open,
    /// As `Open`, to who sends this `Proxy-Authorization`; 407 to others.
    Wants(&'static str),
    /// As `Open`, with this status line.
    OpenWith(&'static str),
    /// With this status, and perhaps headers, always.
    Refuses(&'static str),
}

/// Listens on a port of 127.0.0.1 for as long as the test process lives.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// `hosts` are those that it can connect to, by the names that it is asked for: `scraper.test:443`.
    pub(crate) fn start(manner: Manner, hosts: &[(&str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let hosts: Vec<_> = hosts.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (hosts, log) = (hosts.clone(), Arc::clone(&log));
                // An error is somebody who went away.
                thread::spawn(move || serve(stream, manner, &hosts, &log));
            }
        });
        Self { address, asked }
    }

    /// The hosts that it was asked for so far, in their order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("sound").clone()
    }
}

fn serve(
    mut stream: TcpStream,
    manner: Manner,
    hosts: &[(String, SocketAddr)],
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = read_line(&mut reader)?;
    let headers = read_headers(&mut reader)?;
    let mut answer = |line: &str| write!(stream, "HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
    let Some(("CONNECT", host)) = request.trim_end_matches(" HTTP/1.1").split_once(' ') else {
        return answer("405 Method Not Allowed");
    };
    log.lock().expect("sound").push(host.to_owned());
    let credentials = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
    match manner {
        Manner::Refuses(status) => return answer(status),
        Manner::Wants(wanted) if credentials.is_none_or(|(_, given)| given != wanted) => {
            return answer("407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"test\"");
        }
        Manner::Open | Manner::OpenWith(_) | Manner::Wants(_) => {}
    }
    let Some((_, there)) = hosts.iter().find(|(name, _)| name == host) else { return answer("502 Bad Gateway") };
    let Ok(mut there) = TcpStream::connect(there) else { return answer("502 Bad Gateway") };
    let status = match manner {
        Manner::OpenWith(status) => status,
        _ => "HTTP/1.0 200 Connection established", // as old as many of them claim to be
    };
    write!(stream, "{status}\r\nProxy-Agent: test\r\n\r\n")?;
    stream.set_nodelay(true)?;
    there.set_nodelay(true)?;
    let (mut back, mut from_there) = (stream, there.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_there, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let copied = io::copy(&mut reader, &mut there);
    let _ = there.shutdown(Shutdown::Both);
    copied.map(drop)
}
