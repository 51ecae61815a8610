//! A map with a bound on its weight that forgets by the CLOCK rule: first in, first out, but what
//! was looked at since its turn came last gets another one.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::Hash;

use hashbrown::HashMap;

#[derive(Debug)]
struct Slot<V> {
    value: V,
    weight: usize,
    used: bool,
}

#[derive(Debug)]
pub(crate) struct ClockMap<K, V> {
    slots: HashMap<K, Slot<V>>,
    hand: VecDeque<K>,
    weight: usize,
    weight_max: usize,
}

impl<K: Clone + Eq + Hash, V> ClockMap<K, V> {
    pub(crate) fn new(weight_max: usize) -> ClockMap<K, V> {
        ClockMap { slots: HashMap::new(), hand: VecDeque::new(), weight: 0, weight_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slots.get_mut(key).map(|slot| {
            slot.used = true;
            &slot.value
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// What is already there may go, the new value does not.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        if let Some(old) = self.slots.get_mut(&key) {
            self.weight -= std::mem::take(&mut old.weight);
        }
        while self.weight + weight > self.weight_max && self.weight > 0 {
            self.forget_one();
        }
        if self.slots.insert(key.clone(), Slot { value, weight, used: false }).is_none() {
            self.hand.push_back(key);
        }
        self.weight += weight;
    }

    /// Forgets what is not to be kept.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let before = self.slots.len();
        let weight = &mut self.weight;
        self.slots.retain(|key, slot| {
            let kept = keep(key, &slot.value);
            if !kept {
                *weight -= slot.weight;
            }
            kept
        });
        if self.slots.len() < before {
            let slots = &self.slots;
            self.hand.retain(|key| slots.contains_key(key));
        }
    }

    fn forget_one(&mut self) {
        loop {
            let key = self.hand.pop_front().expect("every slot has its place in the round");
            let slot = self.slots.get_mut(&key).expect("only forget_one removes slots");
            if !std::mem::take(&mut slot.used) {
                self.weight -= slot.weight;
                self.slots.remove(&key);
                return;
            }
            self.hand.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_what_is_used_stays_longer() {
        let mut map = ClockMap::new(3);
        for key in ["a", "b", "c"] {
            map.insert(key, key, 1);
        }
        assert_eq!(map.get("a"), Some(&"a"));
        map.insert("d", "d", 1);
        assert_eq!(map.len(), 3);
        assert!(map.get("a").is_some() && map.get("b").is_none());
        map.insert("e", "e", 3);
        assert_eq!(map.len(), 1, "a heavy one takes the room of all");
        map.insert("e", "E", 1);
        assert_eq!((map.len(), map.get("e")), (1, Some(&"E")));
        map.insert("f", "f", 2);
        map.retain(|key, _| *key == "f");
        map.insert("g", "g", 1);
        assert!(map.get("e").is_none() && map.get("f").is_some() && map.get("g").is_some());
        map.insert("h", "h", 3);
        assert_eq!(map.len(), 1, "the round has no place for what is gone");
    }
}
