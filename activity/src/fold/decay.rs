//! Exponential decay without touching what decays: the newer weighs more instead of the older less.
//!
//! Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay: a practical time decay model for streaming systems", ICDE 2009): what
//! happens at time t weighs 2^((t − landmark) / half-life), and divided by the weight of now that is what is left of it. So the order
//! of two sums never changes by waiting. When weights get large, the landmark is moved and all sums are made smaller at once.

use crate::pack::{Damaged, Unpack, put};

/// The landmark is moved when now weighs two to this.
const EXPONENT_MAX: f64 = 32.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Decay {
    half_life_ms: u64,
    landmark_ms: u64,
}

impl Decay {
    /// The first call of [`Decay::moved`] sets the landmark.
    pub(crate) const fn new(half_life_ms: u64) -> Self {
        Self { half_life_ms, landmark_ms: 0 }
    }

    /// What happens at `now_ms` weighs this.
    pub(crate) fn weight(&self, now_ms: u64) -> f64 {
        self.exponent(now_ms).exp2()
    }

    fn exponent(&self, now_ms: u64) -> f64 {
        (now_ms as f64 - self.landmark_ms as f64) / self.half_life_ms as f64
    }

    /// Moves the landmark if it is time, and says by what all sums must be multiplied then.
    pub(crate) fn moved(&mut self, now_ms: u64) -> Option<f64> {
        let exponent = self.exponent(now_ms);
        if exponent < EXPONENT_MAX {
            return None;
        }
        self.landmark_ms = now_ms;
        Some((-exponent).exp2())
    }

    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        put(out, self.landmark_ms);
    }

    pub(crate) fn load(half_life_ms: u64, unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        Ok(Self { half_life_ms, landmark_ms: unpack.number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::HOUR_MS;

    #[test]
    fn a_sum_halves_in_a_half_life_wherever_the_landmark_is() {
        let (mut decay, mut sum, mut moves) = (Decay::new(HOUR_MS), 0.0, 0);
        let begin_ms = 1_795_254_355_700;
        for hour in 0..200 {
            let now_ms = begin_ms + hour * HOUR_MS;
            if let Some(factor) = decay.moved(now_ms) {
                sum *= factor;
                moves += 1;
            }
            sum += decay.weight(now_ms);
            let left = sum / decay.weight(now_ms);
            assert!((left - (2.0 - (-(hour as f64)).exp2())).abs() < 1e-9, "{hour}: {left}");
            assert!(decay.weight(now_ms) <= 32_f64.exp2());
        }
        assert!((5..=8).contains(&moves), "{moves}");
    }
}
