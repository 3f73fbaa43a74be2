// SPDX-License-Identifier: GPL-2.0-only
//! Spoils messages as a fuzzer does, the same way for the same seed.

use super::random::Random;

/// Lengths and kinds at which programs stumble.
const NUMBERS: [u32; 12] = [0, 1, 3, 4, 5, 8, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// One to four changes of one of the seeds. Half of the single netlink messages, which begin with
/// their length, have that put right, so that they get past the first check.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(seeds).clone();
    let is_message = bytes.starts_with(&length(&bytes));
    for _ in 0..=random.below(4) {
        change(&mut bytes, seeds, random);
    }
    if is_message && bytes.len() >= 4 && random.below(2) == 0 {
        let right = length(&bytes);
        bytes[..4].copy_from_slice(&right);
    }
    bytes
}

fn length(message: &[u8]) -> [u8; 4] {
    (message.len() as u32).to_ne_bytes()
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    let (at, other): (_, &Vec<u8>) = (random.below(bytes.len()), random.pick(seeds));
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => put(bytes, at & !3, 2, random),
        4 => put(bytes, at & !3, 4, random),
        5 => splice(bytes, at, other, random),
        _ => repeat(bytes, at, random),
    }
}

/// Writes a number over some bytes: netlink's lengths and kinds stand at multiples of 4.
fn put(bytes: &mut [u8], at: usize, width: usize, random: &mut Random) {
    let number = random.pick(&NUMBERS).to_ne_bytes();
    let low = if cfg!(target_endian = "big") { &number[4 - width..] } else { &number[..width] };
    for (place, byte) in bytes[at..].iter_mut().zip(low) {
        *place = *byte;
    }
}

/// Goes on with the end of another seed.
fn splice(bytes: &mut Vec<u8>, at: usize, other: &[u8], random: &mut Random) {
    bytes.truncate(at & !3);
    let from = random.below(other.len() + 1) & !3;
    bytes.extend(&other[from..]);
}

/// Says a part twice.
fn repeat(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let from = random.below(at + 1) & !3;
    let part = bytes[from..at].to_vec();
    bytes.splice(at..at, part);
}
