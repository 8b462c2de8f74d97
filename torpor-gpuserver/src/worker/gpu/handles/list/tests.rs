use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// In which order a driver gives handles again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Lowest,
    Latest,
}

#[derive(Debug, Default)]
struct Free {
    list: Vec<u64>,
    last: u64,
    live: BTreeSet<u64>,
}

/// A driver with one list of handles for both kinds, or one for each.
#[derive(Clone, Debug)]
struct Driver {
    order: Order,
    lists: [Rc<RefCell<Free>>; 2],
}

#[derive(Debug)]
struct Object(u64, Rc<RefCell<Free>>);

impl Numbered for Object {
    fn number(&self) -> u64 {
        self.0
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let mut free = self.1.borrow_mut();
        assert!(free.live.remove(&self.0));
        free.list.push(self.0);
    }
}

impl Driver {
    fn new(order: Order, is_shared: bool) -> Self {
        let list = Rc::new(RefCell::new(Free::default()));
        let other = if is_shared { list.clone() } else { Rc::default() };
        Self { order, lists: [list, other] }
    }

    fn make(&self, kind: Kind) -> Result<Object, CudaError> {
        let list = &self.lists[usize::from(kind == Kind::Surface)];
        let mut free = list.borrow_mut();
        let at = match self.order {
            Order::Lowest => (0..free.list.len()).min_by_key(|&at| free.list[at]),
            Order::Latest => free.list.len().checked_sub(1),
        };
        let number = match at {
            Some(at) => free.list.remove(at),
            None => {
                free.last += 1;
                free.last
            }
        };
        assert!(free.live.insert(number), "no handle is two objects'");
        Ok(Object(number, list.clone()))
    }
}

#[test]
fn clients_choose_different_handles() {
    let mut list = List::<Object>::new();
    let mut chosen = BTreeSet::new();
    for client in 1..=100 {
        for _ in 0..ZONE {
            let number = list.choose(client).unwrap();
            assert!(list.own(number) && chosen.insert(number));
        }
    }
    let first = list.choose(1).unwrap();
    assert!(first > ZONES * ZONE, "it has all of its own");
    list.disown(33);
    assert_eq!(list.choose(1), Some(33));
    for _ in 0..=LARGE_ZONE {
        list.choose(17).map(|number| list.own(number));
    }
    assert_eq!(list.choose(17), None, "the driver may choose");
}

#[test]
fn a_handle_that_is_never_given_is_not_waited_for_forever() {
    let driver = Driver::new(Order::Lowest, true);
    let taken = driver.make(Kind::Texture).unwrap();
    let mut list = List::new();
    let blank = list.blank((Kind::Surface, taken.number()), |kind| driver.make(kind));
    assert!(blank.unwrap().is_none());
}

proptest! {
    #[test]
    fn the_handle_that_is_wanted_is_given(
        is_lowest: bool,
        is_shared: bool,
        steps in prop::collection::vec((any::<bool>(), 1..300_u64, any::<bool>()), 1..40),
    ) {
        let driver = Driver::new(if is_lowest { Order::Lowest } else { Order::Latest }, is_shared);
        let mut list = List::new();
        let mut objects: HashMap<u64, Object> = HashMap::new();
        for (is_texture, number, goes) in steps {
            let kind = if is_texture { Kind::Texture } else { Kind::Surface };
            if goes && objects.remove(&number).is_some() {
                list.disown(number);
            } else if list.own(number) {
                let blank = list.blank((kind, number), |kind| driver.make(kind)).unwrap().unwrap();
                prop_assert_eq!(blank.number(), number);
                list.keep(kind, blank);
                let made = list.make((kind, number), |kind| driver.make(kind), || driver.make(kind));
                let made = made.unwrap().unwrap();
                prop_assert_eq!(made.number(), number);
                objects.insert(number, made);
            }
        }
    }
}
