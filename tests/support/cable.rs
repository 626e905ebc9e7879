//! The way of TCP connections to a server, which can be cut: nothing passes and nobody is told, as in a partition.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

pub(crate) struct Cable {
    /// Leads to the server.
    pub(crate) address: SocketAddr,
    is_cut: Arc<(Mutex<bool>, Condvar)>,
}

impl Cable {
    pub(crate) fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let is_cut = Arc::default();
        let cable = Self { address, is_cut: Arc::clone(&is_cut) };
        thread::spawn(move || {
            for here in listener.incoming().flatten() {
                let is_cut = Arc::clone(&is_cut);
                // An error is an end that went away.
                thread::spawn(move || carry(here, there, &is_cut));
            }
        });
        cable
    }

    pub(crate) fn cut(&self) {
        *self.is_cut.0.lock().expect("sound") = true;
    }

    /// What was under way arrives late.
    pub(crate) fn mend(&self) {
        *self.is_cut.0.lock().expect("sound") = false;
        self.is_cut.1.notify_all();
    }
}

fn carry(here: TcpStream, there: SocketAddr, is_cut: &Arc<(Mutex<bool>, Condvar)>) -> io::Result<()> {
    wait_mended(is_cut);
    let there = TcpStream::connect(there)?;
    let back = (there.try_clone()?, here.try_clone()?, Arc::clone(is_cut));
    thread::spawn(move || carry_one_way(back.0, back.1, &back.2));
    carry_one_way(here, there, is_cut);
    Ok(())
}

fn carry_one_way(mut from: TcpStream, mut to: TcpStream, is_cut: &(Mutex<bool>, Condvar)) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        wait_mended(is_cut);
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    wait_mended(is_cut);
    let _ = to.shutdown(Shutdown::Both);
}

fn wait_mended((is_cut, mended): &(Mutex<bool>, Condvar)) {
    drop(mended.wait_while(is_cut.lock().expect("sound"), |is_cut| *is_cut).expect("sound"));
}
