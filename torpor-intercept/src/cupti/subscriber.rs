//! Subscribers: who wants to be called at CUDA calls. One may be there, and none is called but for what there is: contexts that
//! are made, which a client's never is while a subscriber could tell.

use super::clock;
use super::result::{CuptiError, CuptiResult};
use crate::driver::argument::Out;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// `CUPTI_API_VERSION` of CUDA 13.0 (cupti_version.h): whose records there are.
const VERSION: u32 = 130_001;

/// `CUPTI_CB_DOMAIN_RESOURCE`
const RESOURCE: u32 = 3;

/// The subscriber; its address is its handle.
static IS_SUBSCRIBED: AtomicBool = AtomicBool::new(false);

fn handle() -> *mut c_void {
    ptr::from_ref(&IS_SUBSCRIBED).cast_mut().cast()
}

fn check(subscriber: *mut c_void) -> CuptiResult {
    let is_it = subscriber == handle() && IS_SUBSCRIBED.load(Ordering::Relaxed);
    if is_it { Ok(()) } else { Err(CuptiError::InvalidParameter) }
}

/// Only contexts' beginning and end can be asked for.
fn enable(is_wanted: u32, subscriber: *mut c_void, domain: u32) -> CuptiResult {
    check(subscriber)?;
    if is_wanted == 0 || domain == RESOURCE { Ok(()) } else { Err(CuptiError::NotSupported) }
}

super::cupti_functions! {
    /// Whose records these are.
    fn cuptiGetVersion(version: Out<u32>) {
        version.put(VERSION).map_err(|_| CuptiError::InvalidParameter)
    }

    /// Makes the one subscriber.
    fn cuptiSubscribe(subscriber: Out<*mut c_void>, callback: *const c_void, _data: *mut c_void) {
        if subscriber.is_null() || callback.is_null() {
            return Err(CuptiError::InvalidParameter);
        }
        if IS_SUBSCRIBED.swap(true, Ordering::Relaxed) {
            return Err(CuptiError::MultipleSubscribersNotSupported);
        }
        subscriber.put(handle()).map_err(|_| CuptiError::InvalidParameter)
    }

    /// Takes it away.
    fn cuptiUnsubscribe(subscriber: *mut c_void) {
        check(subscriber)?;
        IS_SUBSCRIBED.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Wants one function of a domain to be told of.
    fn cuptiEnableCallback(is_wanted: u32, subscriber: *mut c_void, domain: u32, _number: u32) {
        enable(is_wanted, subscriber, domain)
    }

    /// Wants a whole domain to be told of.
    fn cuptiEnableDomain(is_wanted: u32, subscriber: *mut c_void, domain: u32) {
        enable(is_wanted, subscriber, domain)
    }

    /// Lets go of the process: nothing is held.
    fn cuptiFinalize() {
        clock::choose(None);
        IS_SUBSCRIBED.store(false, Ordering::Relaxed);
        Ok(())
    }
}
