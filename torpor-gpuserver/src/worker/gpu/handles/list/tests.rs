use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Fewer than a driver has, but some words.
const NUMBERS: u64 = 1024;

/// In which order a driver gives handles again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// As an H100's does.
    InWord,
    Lowest,
    Latest,
}

#[derive(Debug, Default)]
struct Numbers {
    live: BTreeSet<u64>,
    /// Given back while a kernel runs.
    not_yet_free: Vec<u64>,
    /// In the order in which they were given back.
    free: Vec<u64>,
    last: u64,
    highest: u64,
}

impl Numbers {
    fn next(&self, order: Order) -> Option<u64> {
        let is_free = |number: &u64| !self.live.contains(number) && !self.not_yet_free.contains(number);
        let first = match order {
            Order::InWord => word(self.last) * WORD,
            Order::Lowest => 0,
            Order::Latest => match self.free.last() {
                Some(number) => return Some(*number),
                None => self.highest,
            },
        };
        (first..NUMBERS).chain(0..first).map(|index| index + 1).find(is_free)
    }
}

#[derive(Clone, Debug)]
struct Driver {
    order: Order,
    numbers: Rc<RefCell<Numbers>>,
    runs_kernel: Rc<RefCell<bool>>,
}

#[derive(Debug)]
struct Object(u64, Driver);

impl Numbered for Object {
    fn number(&self) -> u64 {
        self.0
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let mut numbers = self.1.numbers.borrow_mut();
        assert!(numbers.live.remove(&self.0));
        let list = if *self.1.runs_kernel.borrow() { &mut numbers.not_yet_free } else { &mut numbers.free };
        list.push(self.0);
    }
}

impl Driver {
    fn new(order: Order) -> Self {
        Self { order, numbers: Rc::default(), runs_kernel: Rc::default() }
    }

    fn make(&self) -> Result<Object, CudaError> {
        let mut numbers = self.numbers.borrow_mut();
        let number = numbers.next(self.order).ok_or(CudaError::OUT_OF_MEMORY)?;
        numbers.free.retain(|free| *free != number);
        numbers.last = number;
        numbers.highest = numbers.highest.max(number);
        assert!(numbers.live.insert(number), "no handle is two objects'");
        Ok(Object(number, self.clone()))
    }

    fn runs_kernel(&self, runs: bool) {
        *self.runs_kernel.borrow_mut() = runs;
        if !runs {
            let mut numbers = self.numbers.borrow_mut();
            let free = std::mem::take(&mut numbers.not_yet_free);
            numbers.free.extend(free);
        }
    }
}

#[test]
fn clients_of_different_gpus_have_different_handles() {
    let mut seen = BTreeSet::new();
    for client in 0..CHOSEN / ZONE {
        let (driver, mut list) = (Driver::new(Order::InWord), List::default());
        for _ in 0..ZONE {
            let object = list.make(client, || driver.make()).unwrap();
            assert!(seen.insert(object.number()), "client {client}");
            std::mem::forget(object);
        }
        let more = list.make(client, || driver.make()).unwrap();
        assert!(more.number() <= WORD, "the driver stays in the first word: {more:?}");
    }
}

#[test]
fn a_handle_whose_object_is_away_is_nobody_elses() {
    let (driver, mut list) = (Driver::new(Order::InWord), List::default());
    let away = list.make(0, || driver.make()).unwrap().number();
    let other = list.make(0, || driver.make()).unwrap();
    assert_ne!(other.number(), away);
    list.disown(away);
    assert_eq!(list.make(0, || driver.make()).unwrap().number(), away);
}

#[test]
fn a_handle_that_is_never_given_is_not_waited_for_forever() {
    let driver = Driver::new(Order::InWord);
    let taken = driver.make().unwrap();
    assert!(find(taken.number(), ALL, || driver.make()).unwrap().is_none());
    let found = find(64, A_LOOK, || driver.make()).unwrap();
    assert!(found.is_none(), "no more were made than there should be: {found:?}");
}

#[test]
fn a_handle_that_a_kernel_keeps_is_waited_for() {
    let driver = Driver::new(Order::InWord);
    driver.runs_kernel(true);
    let number = driver.make().unwrap().number();
    let makes = RefCell::new(0);
    let make = || {
        *makes.borrow_mut() += 1;
        driver.runs_kernel(*makes.borrow() < 5);
        driver.make()
    };
    assert_eq!(find(number, ALL, make).unwrap().unwrap().number(), number);
    assert_eq!(*makes.borrow(), 5, "the driver stays in that word");
}

#[test]
fn a_handle_of_a_word_that_the_driver_has_left_is_found() {
    let driver = Driver::new(Order::InWord);
    let held: Vec<_> = (0..WORD + 3).map(|_| driver.make().unwrap()).collect();
    let number = held[7].number();
    drop(held);
    assert_eq!(find(number, ALL, || driver.make()).unwrap().unwrap().number(), number);
}

proptest! {
    #[test]
    fn the_handle_that_is_wanted_is_given(
        order in prop::sample::select(vec![Order::InWord, Order::Lowest, Order::Latest]),
        steps in prop::collection::vec((0..20_u64, 1..200_u64, any::<bool>()), 1..40),
    ) {
        let (driver, mut list) = (Driver::new(order), List::default());
        let mut objects: HashMap<u64, Option<Object>> = HashMap::new();
        for (client, number, is_new) in steps {
            if is_new {
                let object = list.make(client, || driver.make()).unwrap();
                let before = objects.insert(object.number(), Some(object));
                prop_assert!(before.is_none(), "it is another one's, perhaps one that is away");
                continue;
            }
            match objects.remove(&number) {
                Some(Some(_)) => drop(objects.insert(number, None)),
                Some(None) => {
                    let found = find(number, ALL, || driver.make()).unwrap();
                    prop_assert_eq!(found.as_ref().map(Numbered::number), Some(number));
                    objects.insert(number, found);
                }
                None => {
                    prop_assert!(list.own(number));
                    objects.insert(number, None);
                }
            }
        }
    }
}
