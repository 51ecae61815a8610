//! Makes inputs of other inputs, and keeps those that got a target somewhere new.

use std::collections::HashSet;

use crate::split_mix::Random;

/// The longest input, and how many are kept: what a run holds stays small.
const INPUT_BYTES_MAX: usize = 8 << 10;
const KEPT_MAX: usize = 2048;

/// Numbers at which decoders go wrong.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 3, 127, 255, 256, 4096, 0xFFFF, 1 << 24, u32::MAX as u64, u64::MAX];

#[derive(Debug)]
pub(crate) struct Mutator {
    random: Random,
    kept: Vec<Vec<u8>>,
    reached: HashSet<u64>,
}

impl Mutator {
    pub(crate) fn new(random: Random, corpus: Vec<Vec<u8>>) -> Mutator {
        Mutator { random, kept: corpus, reached: HashSet::new() }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.below(end.max(1) as u64) as usize
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.kept.len());
        let mut input = self.kept[at].clone();
        for _ in 0..1 + self.below(4) {
            self.mutate(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    /// What a target has made of an input, as a number: a new one is worth going on from.
    pub(crate) fn reached(&mut self, input: &[u8], place: u64) {
        if self.reached.len() < KEPT_MAX && self.reached.insert(place) {
            self.kept.push(input.to_vec());
        }
    }

    pub(crate) fn places(&self) -> usize {
        self.reached.len()
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let rest = input.len() - at;
        match self.below(7) {
            0 if rest > 0 => input[at] ^= 1 << self.below(8),
            1 if rest > 0 => input[at] = self.random.next() as u8,
            2 => {
                let number = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                let width = rest.min([1, 2, 4, 8][self.below(4)]);
                input[at..at + width].copy_from_slice(&number[..width]);
            }
            3 => input.truncate(at),
            4 => drop(input.drain(at..at + self.below(rest.min(64)))),
            5 => {
                let piece: Vec<u8> = input[at..at + self.below(rest.min(64) + 1)].to_vec();
                input.splice(at..at, piece);
            }
            _ => {
                let other = self.below(self.kept.len());
                let from = self.below(self.kept[other].len());
                input.truncate(at);
                input.extend_from_slice(&self.kept[other][from..]);
            }
        }
    }
}
