//! Messages: whatever decodes comes back from its own encoding, and every claim in it can be checked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narthex::wire::{RegisterReply, RegisterRequest, codec};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = codec::decode::<RegisterRequest>(bytes) {
        // The encoding may be the shorter one: bincode reads lengths that are written wider than they need be.
        let encoded = codec::encode(&request).expect("what was decoded is within the limit");
        assert_eq!(codec::decode::<RegisterRequest>(&encoded).expect("decodes again"), request);
        if let RegisterRequest::Register(register) = request {
            for claim in register.claims {
                let _ = claim.check();
            }
        }
    }
    if let Ok(reply) = codec::decode::<RegisterReply>(bytes) {
        let encoded = codec::encode(&reply).expect("what was decoded is within the limit");
        assert_eq!(codec::decode::<RegisterReply>(&encoded).expect("decodes again"), reply);
    }
});
