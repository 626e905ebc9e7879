//! The seeds in `fuzz/seeds`: binary ones are made here, texts are written by hand, and what once failed stays.

use std::{collections::BTreeMap, env, fs, panic, path::PathBuf};

use super::register::{NOW_S, RECORDED, announcer};
use crate::{
    network::fuzzing::addresses,
    wire::{
        AliasGuard, AliasOutcome, AliasRefusal, AliasStatus, Announcement, Claim, GroupMember, InstanceId, Probe,
        Probed, Register, RegisterFrom, RegisterReply, RegisterRequest, Registered, codec, fixed_handshake, record_key,
    },
};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 10] = [
    ("announcement", super::announcement),
    ("filter", super::filter),
    ("handshake", super::handshake),
    ("host", super::host),
    ("message", super::message),
    ("multiaddress", super::multiaddress),
    ("session", super::session),
    ("target_file", super::target_file),
    ("text", super::text),
    ("url", super::url),
];

/// Name of a seed and its bytes.
type Seeds = BTreeMap<String, Vec<u8>>;

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

#[test]
fn every_seed_passes_its_target() {
    for (target, run) in TARGETS {
        let seeds: Vec<_> =
            fs::read_dir(directory(target)).expect(target).map(|seed| seed.expect("a file").path()).collect();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for seed in seeds {
            let bytes = fs::read(&seed).expect("reads");
            assert!(panic::catch_unwind(|| run(&bytes)).is_ok(), "{} fails", seed.display());
        }
    }
}

#[test]
fn binary_seeds_are_the_messages_of_today() {
    let made = [
        ("announcement", announcements()),
        ("handshake", handshakes()),
        ("message", messages()),
        ("multiaddress", multiaddresses()),
        ("session", sessions()),
    ];
    let update = env::var_os("NARTHEX_UPDATE_SEEDS").is_some();
    for (target, seeds) in made {
        for (name, bytes) in seeds {
            let path = directory(target).join(name);
            if update {
                fs::create_dir_all(directory(target)).expect("a directory");
                fs::write(&path, &bytes).expect("writes");
            }
            let kept = fs::read(&path).unwrap_or_default();
            assert!(kept == bytes, "{} differs: run this test with NARTHEX_UPDATE_SEEDS=1", path.display());
        }
    }
}

fn claim(number: usize) -> Claim {
    let labels = vec![("region".into(), "eu".into())];
    Claim { alias: format!("web-{number}"), service: "web".into(), labels, unlisted: false }
}

fn register(claims: usize) -> Register {
    Register { hostname: "host.example.org".into(), claims: (0..claims).map(claim).collect() }
}

/// One of every variant, in the order of the wire.
fn requests() -> Vec<(&'static str, RegisterRequest)> {
    let instance = InstanceId([7; 16]);
    let mut unlisted = RegisterFrom { register: register(3), instance, kept: true };
    unlisted.register.claims[1].unlisted = true;
    vec![
        ("register", RegisterRequest::Register(register(3))),
        ("release", RegisterRequest::Release),
        ("probe", RegisterRequest::Probe(Probe { aliases: vec!["web-1".into(), "b".into()] })),
        ("register-from", RegisterRequest::RegisterFrom(RegisterFrom { register: register(3), instance, kept: true })),
        ("release-from", RegisterRequest::ReleaseFrom(instance)),
        ("ask-group", RegisterRequest::Group),
        ("ask-echo", RegisterRequest::Echo(vec![1, 2, 3])),
        ("register-unlisted", RegisterRequest::from(unlisted)),
        ("register-longer-than-a-frame", RegisterRequest::Register(register(3500))),
    ]
}

fn replies() -> Vec<(&'static str, RegisterReply)> {
    let holder = fixed_handshake::client().public();
    let held = |guard| AliasStatus::Held { holder, linked: true, guard };
    let statuses = vec![
        AliasStatus::Free,
        AliasStatus::Full,
        AliasStatus::Invalid,
        held(AliasGuard::None),
        held(AliasGuard::Live),
        held(AliasGuard::Pinned),
    ];
    let refused = [AliasRefusal::Taken, AliasRefusal::Invalid, AliasRefusal::Duplicate, AliasRefusal::Full];
    let mut outcomes = vec![AliasOutcome::Granted { updated: true }];
    outcomes.extend(refused.map(AliasOutcome::Refused));
    let registered = Registered { lease_ms: 600_000, outcomes };
    vec![
        ("registered", RegisterReply::Registered(registered.clone())),
        ("released", RegisterReply::Released),
        ("slow-down", RegisterReply::SlowDown { retry_after_ms: 250 }),
        ("unavailable", RegisterReply::Unavailable),
        ("malformed", RegisterReply::Malformed),
        ("probed", RegisterReply::Probed(Probed { unix_ms: NOW_S * 1000, statuses })),
        ("in-use", RegisterReply::InUse),
        ("contested", RegisterReply::Contested(registered)),
        ("group", RegisterReply::Group(vec![GroupMember { key: holder, addresses: vec!["h:1".into(); 2] }])),
    ]
}

fn messages() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, request) in requests() {
        let bytes = codec::encode(&request).expect("encodes");
        assert_eq!(codec::decode::<RegisterRequest>(&bytes).expect("decodes"), request);
        seeds.insert(name.into(), bytes);
    }
    for (name, reply) in replies() {
        let bytes = codec::encode(&reply).expect("encodes");
        assert_eq!(codec::decode::<RegisterReply>(&bytes).expect("decodes"), reply);
        seeds.insert(name.into(), bytes);
    }
    assert!(seeds["register-longer-than-a-frame"].len() > usize::from(u16::MAX));
    seeds
}

fn handshakes() -> Seeds {
    let recorded = &*RECORDED;
    // Behind the length of its frame.
    fixed_handshake::responder(&recorded.first[2..]).expect("a real first message");
    let mut seeds = Seeds::from([
        ("first".into(), [&[0][..], &recorded.first].concat()),
        ("first-and-requests".into(), [&[0][..], &recorded.first, &recorded.requests].concat()),
        ("first-and-requests-out-of-order".into(), [&[0][..], &recorded.first, &recorded.replies].concat()),
        ("answer".into(), [&[1][..], &recorded.answer].concat()),
        ("answer-and-replies".into(), [&[1][..], &recorded.answer, &recorded.replies].concat()),
    ]);
    for code in 0..=6 {
        seeds.insert(format!("refused-{code}"), vec![1, 0, 2, 1, code]);
    }
    seeds
}

/// `times | len | bytes`, as the target reads them.
fn part(times: u16, once: &[u8]) -> Vec<u8> {
    [&times.to_be_bytes()[..], &[u8::try_from(once.len()).expect("a short part")], once].concat()
}

fn sessions() -> Seeds {
    let [honest, unruly]: [[u8; 4]; 2] = [[0; 4], [1, 0, 0, 0]];
    let encoded: Vec<_> =
        requests().iter().take(5).map(|(_, request)| codec::encode(request).expect("encodes")).collect();
    let messages = encoded.iter().flat_map(|message| part(1, message)).collect::<Vec<u8>>();
    let frames = encoded.iter().flat_map(|message| part(1, &[&[1], &message[..]].concat())).collect::<Vec<u8>>();
    let full_piece = part(u16::MAX, &[0]);
    Seeds::from([
        ("messages".into(), [&honest[..], &messages].concat()),
        ("messages-one-byte-changed".into(), [&[0, 0, 40, 1][..], &messages].concat()),
        ("message-of-many-frames".into(), [&honest[..], &part(u16::MAX, &[7; 3])].concat()),
        ("frames".into(), [&unruly[..], &frames].concat()),
        ("frames-of-one-message".into(), [&unruly[..], &full_piece, &part(1, &[1, 7])].concat()),
        ("frames-short-in-the-middle".into(), [&unruly[..], &part(255, &[0]), &part(1, &[1, 7])].concat()),
        ("frames-without-end".into(), [&unruly[..], &full_piece.repeat(5)].concat()),
        ("frame-empty".into(), [&unruly[..], &part(0, &[])].concat()),
        ("frame-of-no-flag".into(), [&unruly[..], &part(1, &[2, 7])].concat()),
    ])
}

fn multiaddresses() -> Seeds {
    let both = addresses()
        .into_iter()
        .flat_map(|(name, binary, text)| [(name.to_owned(), binary), (format!("{name}-text"), text.into_bytes())]);
    both.collect()
}

fn announcements() -> Seeds {
    let key = announcer();
    let binary: Vec<Vec<u8>> = addresses().into_iter().map(|(_, binary, _)| binary).collect();
    let mut seeds = Seeds::from([("record-key".into(), [&[0][..], &record_key(&key.public())].concat())]);
    for count in [0, 1, binary.len()] {
        let whole = Announcement::sign(&key, &binary[..count], NOW_S * 1_000_000, NOW_S + 3600).expect("signs");
        // What the target signs is behind version and key.
        seeds.insert(format!("signed-{count}"), [&[1][..], &whole[33..whole.len() - 64]].concat());
        seeds.insert(format!("whole-{count}"), [&[0][..], &whole].concat());
    }
    seeds
}
