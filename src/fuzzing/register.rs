//! The protocol between a client and a scraper, and announcements.

use std::{
    cell::RefCell,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    identity::KeyPair,
    wire::{
        Announcement, FIRST_MESSAGE_LEN, GroupMember, HandshakeAnswer, InstanceId, Probe, Register, RegisterFrom,
        RegisterReply, RegisterRequest, Session,
        codec::{self, MAX_MESSAGE_LEN},
        fixed_handshake,
        frame::{self, MAX_FRAME_LEN},
        parse_record_key, record_key,
    },
};

/// Whatever decodes comes back from its own encoding, and every claim in it can be checked.
pub fn message(bytes: &[u8]) {
    if let Ok(request) = codec::decode::<RegisterRequest>(bytes) {
        // The encoding may be the shorter one: bincode reads lengths that are written wider than they need be.
        let encoded = codec::encode(&request).expect("what was decoded is within the limit");
        assert_eq!(codec::decode::<RegisterRequest>(&encoded).expect("decodes again"), request);
        let register = match request {
            RegisterRequest::Register(register) => Some(register),
            RegisterRequest::RegisterFrom(from) => Some(from.register),
            RegisterRequest::RegisterUnlisted(unlisted) => Some(RegisterFrom::from(unlisted).register),
            _ => None,
        };
        for claim in register.into_iter().flat_map(|register| register.claims) {
            let _ = claim.check();
        }
    }
    if let Ok(reply) = codec::decode::<RegisterReply>(bytes) {
        let encoded = codec::encode(&reply).expect("what was decoded is within the limit");
        assert_eq!(codec::decode::<RegisterReply>(&encoded).expect("decodes again"), reply);
        if let RegisterReply::Group(members) = reply {
            let _ = GroupMember::checked(&members, &fixed_handshake::client().public());
        }
    }
}

/// The streams of one honest exchange, in frames.
pub(super) struct Recorded {
    pub(super) first: Vec<u8>,
    pub(super) requests: Vec<u8>,
    pub(super) answer: Vec<u8>,
    pub(super) replies: Vec<u8>,
    /// What the frames of requests and replies contain.
    messages: Vec<Vec<u8>>,
}

pub(super) static RECORDED: LazyLock<Recorded> = LazyLock::new(|| {
    let (initiator, first) = fixed_handshake::initiator();
    let responder = fixed_handshake::responder(&first).expect("reads");
    let (mut theirs, response) = responder.respond(&fixed_handshake::secret()).expect("responds");
    let mut ours = initiator.finish(&response).expect("finishes");
    let register = Register { hostname: "host".into(), claims: vec![] };
    let from = RegisterFrom { register, instance: InstanceId([7; 16]), kept: true };
    let requests =
        [RegisterRequest::RegisterFrom(from), RegisterRequest::Probe(Probe { aliases: vec!["web-1".into()] })]
            .map(|request| codec::encode(&request).expect("encodes"));
    let replies = [RegisterReply::InUse, RegisterReply::Released].map(|reply| codec::encode(&reply).expect("encodes"));
    let sealed = |session: &mut Session, messages: &[Vec<u8>]| {
        messages.iter().flat_map(|message| session.seal(message).expect("seals")).collect()
    };
    Recorded {
        first: framed(&first),
        requests: sealed(&mut ours, &requests),
        answer: framed(&HandshakeAnswer::Noise(&response).encode()),
        replies: sealed(&mut theirs, &replies),
        messages: [requests, replies].concat(),
    }
});

fn framed(content: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    frame::append(content, &mut out).expect("fits");
    out
}

/// The whole stream of a stranger, behind a byte that says to whom: to a scraper if it is even, else to a client. Only
/// the bytes of the recorded exchange get past the handshake, and nothing but its messages comes out.
pub fn handshake(bytes: &[u8]) {
    match bytes {
        [to, stream @ ..] if to % 2 == 0 => to_scraper(stream),
        [_, stream @ ..] => to_client(stream),
        [] => {}
    }
}

fn to_scraper(stream: &[u8]) {
    let Ok(Some(first)) = frame::split(stream, FIRST_MESSAGE_LEN) else { return };
    match fixed_handshake::responder(first.content) {
        Ok(responder) => {
            assert!(stream.starts_with(&RECORDED.first), "nobody without the client's key makes a first message");
            let (mut session, _) = responder.respond(&fixed_handshake::secret()).expect("responds");
            let received = receive(&mut session, first.rest);
            assert!(RECORDED.messages.starts_with(&received), "nobody without the secret is heard");
            assert!(received.len() < 2 || first.rest.starts_with(&RECORDED.requests));
            received.iter().for_each(|bytes| message(bytes));
        }
        Err(error) => {
            let refused = HandshakeAnswer::Refused(error.refusal());
            assert_eq!(HandshakeAnswer::parse(&refused.encode()).expect("parses"), refused);
        }
    }
}

fn to_client(stream: &[u8]) {
    let Ok(Some(split)) = frame::split(stream, MAX_FRAME_LEN) else { return };
    let Ok(answer) = HandshakeAnswer::parse(split.content) else { return };
    assert_eq!(HandshakeAnswer::parse(&answer.encode()).expect("parses again"), answer);
    let HandshakeAnswer::Noise(response) = answer else { return };
    if let Ok(mut session) = fixed_handshake::initiator().0.finish(response) {
        assert!(stream.starts_with(&RECORDED.answer), "nobody without the scraper's key and secret makes a response");
        let received = receive(&mut session, split.rest);
        assert!(RECORDED.messages[2..].starts_with(&received), "nobody without the secret is heard");
        assert!(received.len() < 2 || split.rest.starts_with(&RECORDED.replies));
        received.iter().for_each(|bytes| message(bytes));
    }
}

fn receive(session: &mut Session, mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut received = vec![];
    while let Ok(Some(split)) = frame::split(stream, MAX_FRAME_LEN) {
        match session.open(split.content) {
            Ok(message) => received.extend(message),
            Err(_) => break,
        }
        stream = split.rest;
    }
    received
}

/// `unruly: u8 | at: u16 | mask: u8 | parts`, each part `times: u16 | len: u8 | bytes`: the bytes so many times over. If `unruly`
/// is odd, each part is the plaintext of an authentic frame, as a holder of the secret may send it; else each is a
/// message, and what is received is what was sent. Byte `at` of the stream is changed by `mask` on the way.
pub fn session(bytes: &[u8]) {
    let [unruly, high, low, mask, parts @ ..] = bytes else { return };
    SESSIONS.with_borrow_mut(|(sender, receiver)| {
        receiver.follow(sender);
        if unruly % 2 == 1 {
            let plaintexts = read_parts(parts, Session::MAX_PLAINTEXT_LEN);
            let stream: Vec<u8> = plaintexts.iter().flat_map(|plaintext| sender.seal_plaintext(plaintext)).collect();
            let pieces: Vec<u8> =
                plaintexts.iter().flat_map(|plaintext| plaintext.get(1..).unwrap_or_default()).copied().collect();
            let received = receive(receiver, &stream);
            assert!(received.iter().all(|message| message.len() <= MAX_MESSAGE_LEN));
            assert!(pieces.starts_with(&received.concat()), "received something that was not sent");
            received.iter().for_each(|bytes| message(bytes));
            return;
        }
        let messages = read_parts(parts, MAX_MESSAGE_LEN);
        let mut stream: Vec<u8> =
            messages.iter().flat_map(|message| sender.seal(message).expect("within the limit")).collect();
        let at = usize::from(u16::from_be_bytes([*high, *low]));
        let changed = *mask != 0 && at < stream.len();
        if changed {
            stream[at] ^= mask;
        }
        let received = receive(receiver, &stream);
        assert!(messages.starts_with(&received), "received something that was not sent");
        assert!(changed || received == messages, "lost something that was sent");
    });
}

thread_local! {
    static SESSIONS: RefCell<(Session, Session)> = RefCell::new(sessions());
}

fn sessions() -> (Session, Session) {
    let (initiator, first) = fixed_handshake::initiator();
    let responder = fixed_handshake::responder(&first).expect("reads");
    let (theirs, response) = responder.respond(&fixed_handshake::secret()).expect("responds");
    (initiator.finish(&response).expect("finishes"), theirs)
}

/// At most 16 parts: what has no end takes all the time.
fn read_parts(mut bytes: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let mut parts = vec![];
    while let [high, low, len, rest @ ..] = bytes
        && parts.len() < 16
    {
        let (once, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        let times = usize::from(u16::from_be_bytes([*high, *low]));
        let mut part = once.repeat(times.min(limit / once.len().max(1) + 1));
        part.truncate(limit);
        parts.push(part);
        bytes = rest;
    }
    parts
}

/// When the announcements of the seeds are valid.
pub(super) const NOW_S: u64 = 1_700_000_000;

static KEY: LazyLock<KeyPair> = LazyLock::new(announcer);

pub(super) fn announcer() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

/// Record keys and announcements, of which there is one encoding only. If the first byte is odd, the rest is signed, to get
/// past the signature to the layout.
pub fn announcement(bytes: &[u8]) {
    let [sign, bytes @ ..] = bytes else { return };
    if let Some(key) = parse_record_key(bytes) {
        assert_eq!(record_key(&key), bytes);
    }
    let whole = if sign % 2 == 1 { signed_tail(bytes) } else { bytes.to_vec() };
    if let Ok(announcement) = Announcement::verify(&whole, &KEY.public(), now()) {
        let again =
            Announcement::sign(&KEY, &announcement.addresses, announcement.sequence, announcement.expires_at_unix_s);
        assert_eq!(again.expect("what was verified can be signed"), whole, "there is one encoding only");
        announcement.addresses.iter().for_each(|address| super::multiaddress(address));
    }
}

/// `tail` behind version and key, with the right signature.
fn signed_tail(tail: &[u8]) -> Vec<u8> {
    let body = [&[1], KEY.public().as_bytes().as_slice(), tail].concat();
    let signature = KEY.sign(&[b"narthex announce v1".as_slice(), &body].concat());
    [body.as_slice(), &signature].concat()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW_S)
}
