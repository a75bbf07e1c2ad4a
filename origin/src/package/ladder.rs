//! Which renditions a picture gets: pure arithmetic on its size and frame rate.
//!
//! A rung is named by its shorter side ("v720" is 1280x720, and 720x1280 for a portrait). The top rung is the source's own
//! size, no rung is larger, and there are never fewer than three.

/// Shorter sides in common use, largest first.
const SIDES: [u32; 8] = [2160, 1440, 1080, 720, 480, 360, 240, 144];
/// At least this many rungs, whatever the source.
const RUNGS_MIN: usize = 3;
/// Rungs below this side are only made to reach [`RUNGS_MIN`].
const SIDE_WANTED: u32 = 360;
/// Pictures are not made smaller than this; at this size further rungs differ in bitrate only.
const SIDE_MIN: u32 = 16;
/// The longer side of the top rung: what H.264 decoders of today take.
const LONG_SIDE_MAX: u32 = 4096;
/// Bits per second that 1280x720 at 30 frames a second may reach.
const REFERENCE_BITS_PER_SECOND: f64 = 3_000_000.0;
const REFERENCE_PIXELS: f64 = 1280.0 * 720.0;
const QUALITY: u32 = 23;
const QUALITY_STEP: u32 = 6;
const BITS_PER_SECOND_MIN: f64 = 60_000.0;

/// Frames per second as a fraction, so that 30000/1001 stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameRate {
    pub(crate) numerator: u32,
    pub(crate) denominator: u32,
}

impl FrameRate {
    pub(crate) const fn new(numerator: u32, denominator: u32) -> Self {
        Self { numerator, denominator }
    }

    pub(crate) fn per_second(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

impl std::fmt::Display for FrameRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

/// The constant rates that we make, slowest first.
const RATES: [FrameRate; 13] = [
    FrameRate::new(10, 1),
    FrameRate::new(12, 1),
    FrameRate::new(15, 1),
    FrameRate::new(20, 1),
    FrameRate::new(24_000, 1001),
    FrameRate::new(24, 1),
    FrameRate::new(25, 1),
    FrameRate::new(30_000, 1001),
    FrameRate::new(30, 1),
    FrameRate::new(48, 1),
    FrameRate::new(50, 1),
    FrameRate::new(60_000, 1001),
    FrameRate::new(60, 1),
];

/// The constant rate for a source that has `per_second` frames a second on average: the nearest of [`RATES`] when it is
/// one of them within 0.05 %, else the next above, so that no frame is lost. Above 60 it is halved first.
pub(crate) fn constant_rate(per_second: f64) -> FrameRate {
    let mut wanted = per_second.clamp(1.0, 240.0);
    while wanted > 60.03 {
        wanted /= 2.0;
    }
    let near = RATES.into_iter().find(|rate| (rate.per_second() / wanted - 1.0).abs() < 0.0005);
    near.or_else(|| RATES.into_iter().find(|rate| rate.per_second() >= wanted)).unwrap_or(FrameRate::new(60, 1))
}

/// One video rendition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rung {
    /// "v720"; unique in a ladder.
    pub(crate) id: String,
    /// Pixels, both even.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Constant rate factor of x264: 23 is good, and 6 more is half the bits.
    pub(crate) quality: u32,
    /// What the encoder may not exceed over two seconds.
    pub(crate) bits_per_second_max: u32,
}

/// The renditions of a picture of `width` × `height` square pixels (each at least [`PICTURE_SIDE_MIN`]), best first.
pub(crate) fn ladder(width: u32, height: u32, rate: FrameRate) -> Vec<Rung> {
    let side = width.min(height);
    let fit = f64::from(LONG_SIDE_MAX) / f64::from(width.max(height));
    let top = even(f64::from(side) * fit.min(1.0)).clamp(2, SIDES[0]);
    let mut sides = vec![top];
    let smaller = SIDES.into_iter().filter(|side| f64::from(*side) < 0.9 * f64::from(top));
    sides.extend(smaller.clone().filter(|side| *side >= SIDE_WANTED));
    sides.extend(smaller.filter(|side| *side < SIDE_WANTED).take(RUNGS_MIN.saturating_sub(sides.len())));
    while sides.len() < RUNGS_MIN {
        let last = sides[sides.len() - 1];
        sides.push(even(f64::from(last) * 0.75).max(SIDE_MIN.min(top)));
    }

    let mut rungs: Vec<Rung> = Vec::new();
    for rung_side in sides {
        let scale = f64::from(rung_side) / f64::from(side);
        let (width, height) = (even(f64::from(width) * scale), even(f64::from(height) * scale));
        let same_size = rungs.iter().filter(|rung| (rung.width, rung.height) == (width, height)).count();
        let id = match same_size {
            0 => format!("v{rung_side}"),
            n => format!("v{rung_side}-{}", n + 1),
        };
        let bits = bits_per_second(width, height, rate) / f64::from(1 << same_size);
        let quality = QUALITY + QUALITY_STEP * same_size as u32;
        rungs.push(Rung { id, width, height, quality, bits_per_second_max: bits.max(BITS_PER_SECOND_MIN) as u32 });
    }
    rungs
}

/// The smallest picture that is packaged, each side in pixels.
pub(crate) const PICTURE_SIDE_MIN: u32 = SIDE_MIN;

/// Down to an even number: 4:2:0 chroma has half the pixels each way. A hair is added first, so that 853.9999 is 854.
const fn even(pixels: f64) -> u32 {
    ((pixels + 0.001) / 2.0) as u32 * 2
}

/// Detail grows slower than the number of pixels, and motion between frames shrinks as there are more of them.
fn bits_per_second(width: u32, height: u32, rate: FrameRate) -> f64 {
    let pixels = f64::from(width) * f64::from(height) / REFERENCE_PIXELS;
    REFERENCE_BITS_PER_SECOND * pixels.powf(0.75) * (rate.per_second() / 30.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(width: u32, height: u32) -> Vec<(u32, u32)> {
        ladder(width, height, FrameRate::new(25, 1)).iter().map(|rung| (rung.width, rung.height)).collect()
    }

    #[test]
    fn common_sources_get_common_rungs() {
        assert_eq!(sizes(1920, 1080), [(1920, 1080), (1280, 720), (852, 480), (640, 360)]);
        assert_eq!(sizes(1280, 720), [(1280, 720), (852, 480), (640, 360)]);
        assert_eq!(sizes(1080, 1920), [(1080, 1920), (720, 1280), (480, 852), (360, 640)]);
        assert_eq!(sizes(640, 360), [(640, 360), (426, 240), (256, 144)]);
    }

    #[test]
    fn any_source_gets_three_even_rungs_not_above_itself() {
        for (width, height) in
            [(16, 16), (17, 16), (33, 1001), (320, 180), (853, 481), (7680, 4320), (16000, 100), (60000, 16), (100, 20)]
        {
            let rungs = ladder(width, height, FrameRate::new(60, 1));
            assert!(rungs.len() >= 3, "{width}x{height}: {rungs:?}");
            for rung in &rungs {
                assert!(rung.width <= width && rung.height <= height, "{width}x{height}: {rung:?}");
                assert!(rung.width.is_multiple_of(2) && rung.height.is_multiple_of(2) && rung.height > 0 && rung.width > 0);
                assert_eq!(rungs.iter().filter(|other| other.id == rung.id).count(), 1, "{rungs:?}");
            }
            assert!(rungs.is_sorted_by(|a, b| a.bits_per_second_max >= b.bits_per_second_max), "{rungs:?}");
        }
        assert_eq!(sizes(16, 16), [(16, 16); 3]);
        let qualities = ladder(16, 16, FrameRate::new(25, 1)).iter().map(|rung| rung.quality).collect::<Vec<_>>();
        assert_eq!(qualities, [23, 29, 35]);
    }

    #[test]
    fn rates_are_constant_and_lose_no_frame() {
        for (source, made) in [
            (24_000.0 / 1001.0, "24000/1001"),
            (29.97, "30000/1001"),
            (25.0, "25"),
            (24.0, "24"),
            (28.7431, "30000/1001"),
            (1.0, "10"),
            (0.0, "10"),
            (47.0, "48"),
            (59.94, "60000/1001"),
            (119.88, "60000/1001"),
            (240.0, "60"),
            (f64::MAX, "60"),
        ] {
            assert_eq!(constant_rate(source).to_string(), made, "{source}");
        }
    }
}
