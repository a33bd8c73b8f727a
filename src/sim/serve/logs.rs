//! `ClearLog`: the system's log and the BMC's share a mark, so both are cleared.

use super::World;
use super::seat::Seat;

pub(super) fn clear(world: &World, seat: &Seat) {
    let now = world.now();
    seat.with(now, |b| b.vm.clear_log(now));
}
