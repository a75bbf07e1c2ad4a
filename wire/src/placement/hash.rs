//! XXH64: the 64-bit hash that placement is made of, byte for byte as in "xxHash fast digest algorithm" (xxHash
//! specification 0.1.1, section XXH64). What [`xxh64`] returns is part of the protocol.
//!
//! It stands here in full, and not in a library's keeping, because whoever places objects must agree on every bit for as
//! long as any edge is in service.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// Bytes that the four accumulators take at a time.
const STRIPE: usize = 32;

/// The XXH64 of `input`.
pub(super) const fn xxh64(mut input: &[u8], seed: u64) -> u64 {
    let input_bytes = input.len() as u64;
    let mut hash = if input.len() >= STRIPE {
        let mut lanes =
            [seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2), seed.wrapping_add(PRIME_2), seed, seed.wrapping_sub(PRIME_1)];
        while let Some((stripe, rest)) = input.split_first_chunk::<STRIPE>() {
            let mut lane = 0;
            while lane < 4 {
                lanes[lane] = round(lanes[lane], word(stripe, 8 * lane));
                lane += 1;
            }
            input = rest;
        }
        converge(lanes)
    } else {
        seed.wrapping_add(PRIME_5)
    };
    hash = hash.wrapping_add(input_bytes);
    while let Some((eight, rest)) = input.split_first_chunk::<8>() {
        hash = (hash ^ round(0, u64::from_le_bytes(*eight))).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        input = rest;
    }
    if let Some((four, rest)) = input.split_first_chunk::<4>() {
        let four = u32::from_le_bytes(*four) as u64;
        hash = (hash ^ four.wrapping_mul(PRIME_1)).rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        input = rest;
    }
    while let Some((byte, rest)) = input.split_first() {
        hash = (hash ^ (*byte as u64).wrapping_mul(PRIME_5)).rotate_left(11).wrapping_mul(PRIME_1);
        input = rest;
    }
    avalanche(hash)
}

/// The XXH64 of sixteen bytes, two numbers of eight, little-endian, in two steps: `finish(begin(first, seed), lane(second))`. Who hashes many
/// pairs takes each of the first two steps once for each number.
pub(super) const fn begin(first: u64, seed: u64) -> u64 {
    let hash = seed.wrapping_add(PRIME_5).wrapping_add(16);
    (hash ^ lane(first)).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
}

/// What the second number has to do with it.
pub(super) const fn lane(number: u64) -> u64 {
    round(0, number)
}

/// The hash of both.
pub(super) const fn finish(begun: u64, lane: u64) -> u64 {
    avalanche((begun ^ lane).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
}

const fn word(stripe: &[u8; STRIPE], at: usize) -> u64 {
    let mut bytes = [0; 8];
    let mut n = 0;
    while n < 8 {
        bytes[n] = stripe[at + n];
        n += 1;
    }
    u64::from_le_bytes(bytes)
}

const fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

const fn converge([a, b, c, d]: [u64; 4]) -> u64 {
    let mut hash = a.rotate_left(1);
    hash = hash.wrapping_add(b.rotate_left(7));
    hash = hash.wrapping_add(c.rotate_left(12));
    hash = hash.wrapping_add(d.rotate_left(18));
    hash = merge(hash, a);
    hash = merge(hash, b);
    hash = merge(hash, c);
    merge(hash, d)
}

const fn merge(hash: u64, lane: u64) -> u64 {
    (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
}

const fn avalanche(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_vectors_of_the_specification_hold() {
        // The sanity buffer of the reference implementation (tests/sanity_test.c): a byte is the top of a number that is multiplied
        // by a prime for each.
        let mut state = 0x9E37_79B1_u64;
        let buffer: Vec<u8> = std::iter::repeat_with(|| {
            let byte = (state >> 56) as u8;
            state = state.wrapping_mul(11_400_714_785_074_694_797);
            byte
        })
        .take(222)
        .collect();
        const SEED: u64 = 0x9E37_79B1;
        for (bytes, seed, expected) in [
            (0, 0, 0xEF46_DB37_51D8_E999),
            (0, SEED, 0xAC75_FDA2_929B_17EF),
            (1, 0, 0xE934_A84A_DB05_2768),
            (1, SEED, 0x5014_6076_43A9_B4C3),
            (4, 0, 0x9136_A0DC_A574_57EE),
            (14, 0, 0x8282_DCC4_994E_35C8),
            (14, SEED, 0xC3BD_6BF6_3DEB_6DF0),
            (222, 0, 0xB641_AE8C_B691_C174),
            (222, SEED, 0x20CB_8AB7_AE10_C14A),
        ] {
            assert_eq!(xxh64(&buffer[..bytes], seed), expected, "{bytes} bytes, seed {seed:#x}");
        }
        assert_eq!(xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
    }

    #[test]
    fn another_implementation_agrees_on_every_length() {
        let bytes: Vec<u8> = (0..200_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for end in 0..=bytes.len() {
            for seed in [0, 1, 0xDEAD_BEEF, u64::MAX] {
                assert_eq!(
                    xxh64(&bytes[..end], seed),
                    xxhash_rust::xxh64::xxh64(&bytes[..end], seed),
                    "{end} bytes, seed {seed}"
                );
            }
        }
    }

    #[test]
    fn two_numbers_hash_as_their_sixteen_bytes() {
        for (first, second, seed) in [(0_u64, 0_u64, 0), (1, 2, 3), (u64::MAX, 0x0123_4567_89AB_CDEF, 1)] {
            let mut bytes = first.to_le_bytes().to_vec();
            bytes.extend(second.to_le_bytes());
            assert_eq!(finish(begin(first, seed), lane(second)), xxh64(&bytes, seed));
        }
    }

    /// Each bit of the input turns over about half of the bits of the output: what weighted rendezvous needs, as one edge's
    /// draws must say nothing of another's.
    #[test]
    fn each_input_bit_turns_each_output_bit_half_of_the_time() {
        const PAIRS: u64 = 4096;
        for bit in 0..128 {
            let mut turned = [0_u32; 64];
            for n in 0..PAIRS {
                let (first, second) = (xxh64(&n.to_le_bytes(), 7), n);
                let (other_first, other_second) =
                    if bit < 64 { (first ^ (1 << bit), second) } else { (first, second ^ (1 << (bit - 64))) };
                let hash = |first, second| finish(begin(first, 1), lane(second));
                let difference = hash(first, second) ^ hash(other_first, other_second);
                turned.iter_mut().enumerate().for_each(|(at, count)| *count += (difference >> at) as u32 & 1);
            }
            // Half of 4096 and six standard deviations (32 each) around it.
            assert!(turned.iter().all(|count| (1856..=2240).contains(count)), "input bit {bit}: {turned:?}");
        }
    }
}
