//! The programs that engines are measured with. The same source is native code in whoever measures and, as a `cdylib` for
//! `wasm32v1-none`, a module; each of them answers a checksum, by which whoever measures sees that both did the same.
//!
//! It may not import anything or know who measures it; of all, CoreMark alone allocates.
#![no_std]

#[cfg(feature = "host")]
extern crate std;

#[cfg(feature = "coremark")]
extern crate alloc;

#[cfg(feature = "coremark")]
mod coremark;
#[cfg(feature = "host")]
pub mod host;

#[cfg(target_arch = "wasm32")]
mod module;

/// One program.
pub struct Kernel {
    /// Name, and that of the module's export.
    pub name: &'static str,
    /// How much it does on a board; hosts call it more often.
    pub amount: u32,
    /// As native code.
    pub native: fn(u32) -> u32,
}

/// All that are measured: the kernels, and CoreMark with the feature of that name.
pub fn all() -> impl Iterator<Item = &'static Kernel> {
    #[cfg(feature = "coremark")]
    let more = Some(&COREMARK);
    #[cfg(not(feature = "coremark"))]
    let more = None;
    KERNELS.iter().chain(more)
}

/// CoreMark 1.0 as its Rust port has it, so many iterations of its 2K performance run.
#[cfg(feature = "coremark")]
pub const COREMARK: Kernel = Kernel { name: "coremark", amount: 2, native: coremark::coremark };

/// The kernels.
pub const KERNELS: [Kernel; 5] = [
    Kernel { name: "fib", amount: 20, native: fib },
    Kernel { name: "crc", amount: 16_384, native: crc },
    Kernel { name: "sha", amount: 16_384, native: sha },
    Kernel { name: "mat", amount: SIDE as u32, native: mat },
    Kernel { name: "mix", amount: 100, native: mix },
];

const BUFFER_BYTES: usize = 4_096;
/// Rows and columns of [`mat`].
const SIDE: usize = 24;

/// Calls: the Fibonacci number, by recursion.
#[inline(never)]
pub fn fib(number: u32) -> u32 {
    if number < 2 { number } else { fib(number - 1).wrapping_add(fib(number - 2)) }
}

/// Bytes of a linear congruential generator.
fn buffer() -> [u8; BUFFER_BYTES] {
    let mut state = 12_345_u32;
    core::array::from_fn(|_| {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (state >> 16) as u8
    })
}

/// Loads of bytes and of a table: CRC-32 of so many bytes, a buffer over and over.
#[inline(never)]
pub fn crc(bytes: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let buffer = buffer();
    let table: [u32; 256] = core::array::from_fn(|byte| {
        (0..8).fold(byte as u32, |rest, _| if rest & 1 == 0 { rest >> 1 } else { POLYNOMIAL ^ (rest >> 1) })
    });
    let sum = (0..bytes as usize).fold(u32::MAX, |sum, at| {
        let byte = buffer[at % BUFFER_BYTES];
        table[(sum as u8 ^ byte) as usize] ^ (sum >> 8)
    });
    !sum
}

/// FIPS 180-4, 4.2.2.
const ROUND_CONSTANTS: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// Arithmetic and many variables: SHA-256 of so many bytes without padding, in blocks of 64.
#[inline(never)]
pub fn sha(bytes: u32) -> u32 {
    let buffer = buffer();
    let mut state =
        [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    for block in 0..bytes as usize / 64 {
        let at = block * 64 % BUFFER_BYTES;
        if let Some(block) = buffer.get(at..at + 64) {
            sha_block(&mut state, block);
        }
    }
    state[0] ^ state[7]
}

fn sha_block(state: &mut [u32; 8], block: &[u8]) {
    let mut schedule = [0_u32; 64];
    for (word, bytes) in schedule.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for at in 16..64 {
        let (before_2, before_15) = (schedule[at - 2], schedule[at - 15]);
        let low = before_15.rotate_right(7) ^ before_15.rotate_right(18) ^ (before_15 >> 3);
        let high = before_2.rotate_right(17) ^ before_2.rotate_right(19) ^ (before_2 >> 10);
        schedule[at] = schedule[at - 16].wrapping_add(low).wrapping_add(schedule[at - 7]).wrapping_add(high);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (constant, word) in ROUND_CONSTANTS.iter().zip(schedule) {
        let high = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let one = h.wrapping_add(high).wrapping_add(choice).wrapping_add(*constant).wrapping_add(word);
        let low = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let two = low.wrapping_add(majority);
        (h, g, f, e) = (g, f, e, d.wrapping_add(one));
        (d, c, b, a) = (c, b, a, one.wrapping_add(two));
    }
    for (word, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(more);
    }
}

/// Loops and addresses: a product of two matrices with so many rows and columns, 24 at most.
#[inline(never)]
pub fn mat(side: u32) -> u32 {
    let side = (side as usize).min(SIDE);
    let mut left = [[0_i32; SIDE]; SIDE];
    let mut right = [[0_i32; SIDE]; SIDE];
    let mut product = [[0_i32; SIDE]; SIDE];
    for row in 0..side {
        for column in 0..side {
            left[row][column] = (row * 7 + column) as i32;
            right[row][column] = row as i32 - 3 * column as i32;
        }
    }
    for row in 0..side {
        for column in 0..side {
            let mut sum = 0_i32;
            for at in 0..side {
                sum = sum.wrapping_add(left[row][at].wrapping_mul(right[at][column]));
            }
            product[row][column] = sum;
        }
    }
    let rows = product.iter().take(side);
    rows.flat_map(|row| row.iter().take(side))
        .fold(0, |sum: u32, value| sum.wrapping_mul(31).wrapping_add(*value as u32))
}

/// Numbers in many notations, as a scanner of them finds them.
const TEXT: &[u8] = b"5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,\
-.123e-2,-87e+832,+0.6e-12,T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^";

/// Branches: a state machine over a text, and a walk along a list, so many times.
#[inline(never)]
pub fn mix(rounds: u32) -> u32 {
    const LINKS: usize = 64;
    let next: [u16; LINKS] = core::array::from_fn(|at| (at as u16 * 37 + 11) % LINKS as u16);
    let mut visits = [0_u32; 8];
    let (mut sum, mut at) = (0_u32, 0_u16);
    for round in 0..rounds {
        let mut state = 0_u32;
        for byte in TEXT {
            state = match (state, byte ^ (round & 1) as u8) {
                (_, b',') => 0,
                (0, b'0'..=b'9') => 1,
                (0, b'+' | b'-') => 2,
                (0, b'.') => 3,
                (0, _) => 7,
                (1, b'.') => 3,
                (1 | 2, b'0'..=b'9') => 1,
                (2, b'.') => 3,
                (3, b'e' | b'E') => 4,
                (3, b'0'..=b'9') => 3,
                (4, b'+' | b'-') => 5,
                (5 | 6, b'0'..=b'9') => 6,
                _ => 7,
            };
            visits[state as usize] += 1;
        }
        for _ in 0..LINKS {
            sum = sum.rotate_left(5) ^ u32::from(at).wrapping_mul(2_654_435_761);
            at = next[usize::from(at)];
        }
    }
    visits.iter().fold(sum, |sum, visits| sum.wrapping_mul(33).wrapping_add(*visits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "coremark")]
    #[test]
    fn coremark_makes_the_sums_that_it_publishes() {
        assert_ne!((COREMARK.native)(1), 0);
    }

    #[test]
    fn they_compute_what_their_names_say() {
        assert_eq!(fib(20), 6_765);
        // As other implementations compute them for the same bytes.
        let bytes = buffer();
        let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |rest, _| {
                if rest & 1 == 0 { rest >> 1 } else { 0xedb8_8320 ^ (rest >> 1) }
            })
        });
        assert_eq!(crc(BUFFER_BYTES as u32), !sum);
        assert_eq!(TEXT.iter().filter(|byte| **byte == b',').count(), 15);
        let mut state =
            [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
        // The message "abc", padded: FIPS 180-4's first example.
        let mut block = [0; 64];
        block[..4].copy_from_slice(b"abc\x80");
        block[63] = 24;
        sha_block(&mut state, &block);
        assert_eq!(state[0], 0xba78_16bf);
    }
}
