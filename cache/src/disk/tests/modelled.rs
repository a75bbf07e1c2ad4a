//! What `larder replay` says of a device is what the engine does with one.

use super::*;
use crate::{
    memory,
    policy::tests::hash,
    replay::{Log, Piece, Tiers},
};

const REQUESTS: u64 = 1500;

/// Which object is asked for, a few of them most of the time, and its bytes.
fn request(at: u64) -> (String, u64) {
    let object = hash(at) % (1 + hash(at + REQUESTS) % 500);
    (format!("/{object}"), 1 + hash(object) % ONE)
}

/// On a device that seals what is full at once, and on one that leaves it open for what is small.
#[tokio::test]
async fn each_request_of_a_trace_is_a_hit_in_the_model_if_it_is_one_in_the_engine() {
    for segments in [10, 17] {
        let mut rig = Rig::closed(IoChoice::Auto, &[segments]);
        rig.config.planned_share = 0.0;
        rig.open().await.expect("opens");
        let (ssd_bytes, slice_bytes) = ((1 << 20) + segments * SEGMENT, SLICE as u64);
        let tiers = Tiers { ram_bytes: 0, ram_policy: memory::Policy::Lru, ssd_bytes, segment_bytes: SEGMENT, slice_bytes };
        let mut model = Log::new(&tiers).expect("large enough");
        let (mut hits, mut again) = (0, 0);
        for at in 0..REQUESTS {
            let (key, bytes) = request(at);
            let piece = Piece { hash: rig.disk().engine.hash(&key, 0), bytes };
            let is_hit = rig.disk().find(&key, 0).is_some();
            assert_eq!(is_hit, model.has(piece), "request {at}, {segments} segments, {hits} hits before");
            if is_hit {
                hits += 1;
                rig.disk().used(&key, 0);
                model.found(piece.hash);
            } else {
                assert!(rig.offer(&key, 0, bytes, false).await);
                rig.written().await;
                again += u64::from(model.offer(piece).again > 0);
            }
        }
        let stats = rig.disk().stats();
        assert!(
            hits > REQUESTS / 5 && stats.evictions > 100 && stats.reinsertions >= again && again > 10,
            "{hits} hits, {stats:?}"
        );
    }
}
