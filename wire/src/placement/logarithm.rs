//! The logarithm that turns an even hash into an exponential draw, in integers alone, so that it is the same on every machine:
//! the `ln` of a mathematical library is not.
//!
//! [`cost`] is a table with straight lines between its entries. What it returns is part of the protocol.

/// Bits after the binary point of a [`cost`].
pub(super) const FRACTION_BITS: u32 = 40;
/// The table has a line for each of these parts of an octave.
const CELLS: usize = 1024;
const CELL_BITS: u32 = CELLS.trailing_zeros();

/// `CELL_LOGS[i]` is `log2(1 + i / 1024)` in units of 2⁻⁴⁰, rounded down.
static CELL_LOGS: [u64; CELLS + 1] = cell_logs();

/// `-log2((hash + 1) / 2⁶⁴)` in units of 2⁻⁴⁰: 0 for the largest hash, 64 · 2⁴⁰ for 0, never less for a smaller hash.
///
/// With `x = hash + 1 = 2^e · (1 + m)`: the top ten bits of `m` choose a line of the table, the next 32 bits a place on it, the
/// rest is dropped; products are rounded down.
pub(super) fn cost(hash: u64) -> u64 {
    let Some(x) = hash.checked_add(1) else {
        return 0;
    };
    let exponent = 63 - x.leading_zeros();
    // The bits after the leading one, from the top.
    let mantissa = (x << x.leading_zeros()) << 1;
    let cell = (mantissa >> (64 - CELL_BITS)) as usize;
    let along = (mantissa << CELL_BITS) >> 32;
    let (low, high) = (CELL_LOGS[cell], CELL_LOGS[cell + 1]);
    let log = (u64::from(exponent) << FRACTION_BITS) + low + (((high - low) * along) >> 32);
    (64 << FRACTION_BITS) - log
}

const fn cell_logs() -> [u64; CELLS + 1] {
    let mut logs = [0; CELLS + 1];
    let mut cell = 0;
    while cell < CELLS {
        logs[cell] = log2((1 << 63) + ((cell as u64) << (63 - CELL_BITS)));
        cell += 1;
    }
    logs[CELLS] = 1 << FRACTION_BITS;
    logs
}

/// The binary logarithm of `x / 2⁶³`, which is from 1 to 2, a bit at a time: squaring doubles a logarithm, and where the square
/// reaches 2 the bit is one.
const fn log2(mut x: u64) -> u64 {
    let mut log = 0;
    let mut bit = 0;
    while bit < FRACTION_BITS {
        let square = (x as u128 * x as u128) >> 63;
        log <<= 1;
        if square >> 64 == 0 {
            x = square as u64;
        } else {
            x = (square >> 1) as u64;
            log |= 1;
        }
        bit += 1;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::{super::hash::xxh64, *};

    #[test]
    fn the_table_is_that_of_the_protocol() {
        let bytes: Vec<u8> = CELL_LOGS.iter().flat_map(|log| log.to_le_bytes()).collect();
        // From an implementation of its own, by decimal arithmetic of 60 digits.
        assert_eq!((CELL_LOGS[1], CELL_LOGS[512], CELL_LOGS[1023]), (1_548_326_109, 643_173_071_355, 1_098_736_897_615));
        assert_eq!(xxh64(&bytes, 0), 0x4480_2725_4A9F_9779);
    }

    #[test]
    fn the_test_vectors_hold() {
        for (hash, expected) in [
            (0, 64 << 40),
            (1, 69_269_232_549_888),
            (2, 68_626_059_478_533),
            (3, 68_169_720_922_112),
            (1 << 32, 35_184_372_088_463),
            (0x0123_4567_89AB_CDEF, 8_591_343_321_794),
            ((1 << 63) - 1, 1 << 40),
            (1 << 63, 1 << 40),
            (0xFEDC_BA98_7654_3210, 7_065_775_179),
            (u64::MAX - 1, 1),
            (u64::MAX, 0),
        ] {
            assert_eq!(cost(hash), expected, "{hash:#x}");
        }
    }

    #[test]
    fn a_smaller_hash_never_costs_less() {
        let mut hashes: Vec<u64> = (0..64).flat_map(|bit| [1 << bit, (1_u64 << bit) - 1, (1 << bit) + 1]).collect();
        hashes.extend((0..100_000_u64).map(|n| xxh64(&n.to_le_bytes(), 0)));
        hashes.extend((0..100_000_u64).map(|n| u64::MAX - n));
        hashes.sort_unstable();
        assert!(hashes.windows(2).all(|pair| cost(pair[0]) >= cost(pair[1])));
    }

    #[test]
    fn it_is_the_logarithm_to_six_digits() {
        for n in 0..100_000_u64 {
            let hash = xxh64(&n.to_le_bytes(), 0);
            let exact = 64.0 - (hash as f64 + 1.0).log2();
            let ours = cost(hash) as f64 / (1_u64 << FRACTION_BITS) as f64;
            assert!((exact - ours).abs() < 2e-7, "{hash:#x}: {ours} is not {exact}");
        }
    }
}
