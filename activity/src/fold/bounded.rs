//! Sums by key where the keys are a stranger's choice: at most so many, and those that matter are among them.
//!
//! Space-Saving (Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams", ICDT 2005): when
//! there is no room, the key with the smallest sum goes and the new one takes over its sum, which is noted as its possible error.
//! Every key whose true sum is above the total divided by the number of places is here, and no sum is too small or too large by more than
//! its error. With weights of forward decay the sums still only grow, so all of it holds.

use std::{collections::HashMap, sync::Arc};

use crate::pack::{Damaged, Unpack, put, put_float, put_text};

/// A key, its sum, and what else is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Slot<V> {
    pub(crate) key: Arc<str>,
    pub(crate) sum: f64,
    /// How much of the sum may be of keys that were here before.
    pub(crate) error: f64,
    pub(crate) value: V,
    /// Where it stands in the heap.
    at: u32,
}

/// A table of at most `max` keys.
#[derive(Debug, Clone)]
pub(crate) struct Bounded<V> {
    slots: Vec<Slot<V>>,
    places: HashMap<Arc<str>, u32>,
    /// Places of slots, the smallest sum first; each has a smaller or equal sum than the two at twice its place and one or two more.
    heap: Vec<u32>,
    max: usize,
}

impl<V: Default> Bounded<V> {
    pub(crate) fn new(max: usize) -> Self {
        assert!(max > 0, "a table has room for something");
        Self { slots: Vec::new(), places: HashMap::new(), heap: Vec::new(), max }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot<V>> {
        self.slots.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().map(|slot| &mut slot.value)
    }

    /// The place of a key's slot. It stays until another key takes the place.
    pub(crate) fn place(&self, key: &str) -> Option<usize> {
        self.places.get(key).map(|place| *place as usize)
    }

    pub(crate) fn slot(&self, place: usize) -> Option<&Slot<V>> {
        self.slots.get(place)
    }

    pub(crate) fn slot_mut(&mut self, place: usize) -> Option<&mut Slot<V>> {
        self.slots.get_mut(place)
    }

    /// Adds `weight` to the sum of `key` and says where its slot is. A key that takes another one's place finds the other one's value, made
    /// new by `renew`.
    pub(crate) fn add(&mut self, key: &str, weight: f64, renew: impl FnOnce(&mut V)) -> usize {
        let place = match self.places.get(key) {
            Some(place) => *place as usize,
            None => self.enter(key.into(), renew),
        };
        let slot = &mut self.slots[place];
        slot.sum += weight;
        let at = slot.at as usize;
        self.sink(at);
        place
    }

    fn enter(&mut self, key: Arc<str>, renew: impl FnOnce(&mut V)) -> usize {
        if self.slots.len() < self.max {
            let place = self.slots.len();
            let at = self.heap.len();
            self.slots.push(Slot { key: key.clone(), sum: 0.0, error: 0.0, value: V::default(), at: at as u32 });
            self.heap.push(place as u32);
            self.places.insert(key, place as u32);
            self.rise(at);
            return place;
        }
        let place = self.heap[0];
        let slot = &mut self.slots[place as usize];
        self.places.remove(&slot.key);
        slot.key = key.clone();
        slot.error = slot.sum;
        renew(&mut slot.value);
        self.places.insert(key, place);
        place as usize
    }

    /// Multiplies all sums.
    pub(crate) fn scale(&mut self, factor: f64) {
        for slot in &mut self.slots {
            slot.sum *= factor;
            slot.error *= factor;
        }
    }

    fn sum(&self, at: usize) -> f64 {
        self.slots[self.heap[at] as usize].sum
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.slots[self.heap[a] as usize].at = a as u32;
        self.slots[self.heap[b] as usize].at = b as u32;
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.sum(at) < self.sum((at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.heap.len() {
                return;
            }
            let least = if right < self.heap.len() && self.sum(right) < self.sum(left) { right } else { left };
            if self.sum(at) <= self.sum(least) {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }

    /// Writes all of it, with the order of the heap: what is read back goes on in the very same way.
    pub(crate) fn save(&self, out: &mut Vec<u8>, value: impl Fn(&V, &mut Vec<u8>)) {
        put(out, self.slots.len() as u64);
        for slot in &self.slots {
            put_text(out, &slot.key);
            put_float(out, slot.sum);
            put_float(out, slot.error);
            put(out, u64::from(slot.at));
            value(&slot.value, out);
        }
    }

    pub(crate) fn load<'a>(
        max: usize,
        unpack: &mut Unpack<'a>,
        value: impl Fn(&mut Unpack<'a>) -> Result<V, Damaged>,
    ) -> Result<Self, Damaged> {
        let mut table = Self::new(max);
        let count = unpack.count()?;
        if count > max {
            return Err(unpack.damaged());
        }
        table.heap = vec![u32::MAX; count];
        for place in 0..count as u32 {
            let (key, sum, error): (Arc<str>, _, _) = (unpack.text()?.into(), unpack.float()?, unpack.float()?);
            let at: u32 = unpack.small()?;
            match table.heap.get_mut(at as usize) {
                Some(free @ &mut u32::MAX) => *free = place,
                _ => return Err(unpack.damaged()),
            }
            if table.places.insert(key.clone(), place).is_some() {
                return Err(unpack.damaged());
            }
            table.slots.push(Slot { key, sum, error, value: value(unpack)?, at });
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    type Table = Bounded<u32>;

    fn add(table: &mut Table, key: &str, weight: f64) {
        let place = table.add(key, weight, |value| *value = 0);
        table.slot_mut(place).unwrap().value += 1;
    }

    fn bytes(table: &Table) -> Vec<u8> {
        let mut bytes = Vec::new();
        table.save(&mut bytes, |value, out| put(out, u64::from(*value)));
        bytes
    }

    fn load(bytes: &[u8], max: usize) -> Result<Table, Damaged> {
        Table::load(max, &mut Unpack::new(bytes, "a table"), |unpack| unpack.small())
    }

    #[test]
    fn every_key_above_its_share_is_there_and_no_sum_is_off_by_more_than_its_error() {
        let mut random = StdRng::seed_from_u64(1);
        let (mut table, mut truth, mut total) = (Table::new(50), HashMap::<String, f64>::new(), 0.0);
        for n in 0..50_000 {
            // A few that come often, and strangers that come once.
            let key = if random.random_bool(0.5) { format!("k{}", random.random_range(0..20)) } else { format!("s{n}") };
            let weight = random.random_range(0.5..2.0);
            add(&mut table, &key, weight);
            *truth.entry(key).or_default() += weight;
            total += weight;
        }
        assert_eq!((table.len(), table.places.len(), table.heap.len()), (50, 50, 50));
        for (key, true_sum) in &truth {
            match table.place(key).and_then(|place| table.slot(place)) {
                Some(slot) => {
                    assert!(slot.sum >= true_sum - 1e-6 && slot.sum - slot.error <= true_sum + 1e-6, "{key}");
                    if slot.error == 0.0 {
                        assert!((slot.sum - true_sum).abs() < 1e-6);
                    }
                }
                None => assert!(*true_sum <= total / 50.0, "{key}"),
            }
        }
        assert!((0..20).all(|n| table.place(&format!("k{n}")).is_some()));
    }

    #[test]
    fn what_was_saved_goes_on_as_if_nothing_had_been() {
        let mut random = StdRng::seed_from_u64(2);
        let mut table = Table::new(20);
        for round in 0..50 {
            let mut twin = load(&bytes(&table), 20).unwrap();
            for _ in 0..40 {
                let key = format!("k{}", random.random_range(0..40));
                let weight = f64::from(random.random_range(0..3_u8));
                add(&mut table, &key, weight);
                add(&mut twin, &key, weight);
            }
            assert_eq!(bytes(&table), bytes(&twin), "{round}");
        }
        let good = bytes(&table);
        assert!(load(&good, 19).is_err(), "it has more than there is room for");
        for _ in 0..5000 {
            let mut bad = good.clone();
            let at = random.random_range(0..bad.len());
            bad[at] = random.random();
            if let Ok(mut table) = load(&bad, 20) {
                (0..30).for_each(|n| add(&mut table, &format!("x{n}"), 1.0));
            }
        }
    }
}
