//! A device's policy, which every core tells what it found.
//!
//! What is found is told on the way to a viewer, from RAM as from the device, so telling waits for nobody: bytes are added up, and only a slice that the
//! trial has in its sample asks for the lock, and does without where somebody else has it. On a device of a terabyte that is one slice in 256.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Policy, trial::Sample};

/// See the module. There is no policy in it before [`Self::replace`].
#[derive(Default)]
pub(crate) struct SharedPolicy {
    policy: Mutex<Option<Policy>>,
    /// The policy's [`Sample`], to be looked at without the lock.
    sampled_below: AtomicU64,
    /// Bytes found that the policy has not been told of.
    found: AtomicU64,
}

impl SharedPolicy {
    /// Begins anew with `policy`.
    pub(crate) fn replace(&self, policy: Policy) {
        *self.policy.lock() = Some(policy);
        self.with(|_| ());
    }

    /// Asks the policy, if there is one.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&mut Policy) -> T) -> Option<T> {
        let mut policy = self.policy.lock();
        let policy = policy.as_mut()?;
        policy.asked_bytes(self.found.swap(0, Ordering::Relaxed));
        let answer = ask(policy);
        self.sampled_below.store(policy.sample().below, Ordering::Relaxed);
        Some(answer)
    }

    /// A slice was found whose record takes `bytes`.
    pub(crate) fn found(&self, hash: u64, bytes: u64) {
        self.found.fetch_add(bytes, Ordering::Relaxed);
        let sample = Sample { below: self.sampled_below.load(Ordering::Relaxed) };
        if sample.has(hash)
            && let Some(mut policy) = self.policy.try_lock()
            && let Some(policy) = &mut *policy
        {
            policy.shown(hash, bytes);
            self.sampled_below.store(policy.sample().below, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Hits, Shelf, tests::hash};

    const SLICE: u64 = 1 << 20;

    fn policy() -> Policy {
        Policy::new(1000 * SLICE, SLICE, 16 * SLICE)
    }

    /// Finds some slices and offers the others, and keeps what may be kept: what comes of it, step by step.
    #[test]
    fn telling_without_waiting_comes_to_the_same_as_telling_at_once() {
        let (shared, mut alone) = (SharedPolicy::default(), policy());
        shared.replace(policy());
        for step in 0..60_000 {
            let slice = hash(hash(step) % 3000);
            if step % 3 == 0 {
                let admitted = |policy: &mut Policy| {
                    policy.asked(slice, SLICE);
                    (
                        policy.offered(slice, SLICE),
                        policy.new_share(),
                        policy.keeps(slice, Shelf::Proven, Hits::default().hit(7), SLICE, true),
                    )
                };
                assert_eq!(shared.with(admitted), Some(admitted(&mut alone)), "step {step}");
            } else {
                shared.found(slice, SLICE);
                alone.asked(slice, SLICE);
            }
        }
    }

    #[test]
    fn nobody_waits_to_tell_what_was_found() {
        let shared = SharedPolicy::default();
        shared.replace(policy());
        let held = shared.policy.lock();
        (0..1000).for_each(|slice| shared.found(hash(slice), SLICE));
        drop(held);
        assert_eq!(shared.found.load(Ordering::Relaxed), 1000 * SLICE);
        assert!(shared.with(|policy| policy.allowance.bytes).is_some_and(|bytes| bytes > 0.0), "what it earns is not lost");
    }
}
