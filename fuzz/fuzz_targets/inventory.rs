//! Inventories and requests: lists of blobs that travel beside packages.
//!
//! One set of blobs has one form: what is accepted is written again byte for byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use violetd::base::Chain;
use violetd::package::{Inventory, Request};
use violetd_fuzz::check_message;

fuzz_target!(|data: &[u8]| {
    let mut written = Vec::new();
    match Inventory::parse(data) {
        Ok(inventory) => {
            inventory.write(&mut written).expect("memory takes it");
            assert_eq!(written, data, "an inventory has one form");
        }
        Err(error) => check_message(&Chain(&error)),
    }
    written.clear();
    match Request::parse(data) {
        Ok(request) => {
            request.write(&mut written).expect("memory takes it");
            assert_eq!(written, data, "a request has one form");
        }
        Err(error) => check_message(&Chain(&error)),
    }
});
