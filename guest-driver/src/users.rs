// SPDX-License-Identifier: GPL-2.0

//! How much of the device memory each user has, and who gives way to whom.
//!
//! The fair share of a user is the memory, divided by the users who have contexts. A user who holds less and
//! finds no room may have pages of the one who holds most brought home, down to that one's share. Pages outlive
//! the contexts they were moved by, and stay that user's.
//!
//! A user whose tasks are in several groups with limits has a place for each. There pages are charged before they
//! are taken, in units: `charged` = `pages` + `reserved` for moves in progress + what is spare. Less than two
//! units are spare, and none where there is nothing else.
//! No kernel imports: `make test` runs the tests below on the host.

use core::ops::DerefMut;

/// Users who are told apart; whoever comes on top shares the first place with pages that are nobody's.
pub(crate) const MOST_USERS: usize = 256;

/// The place of those who are not told apart, and of pages that are nobody's.
pub(crate) const NOBODY: u16 = 0;

/// Pages that are charged at a time: as many as move around a fault at first.
pub(crate) const UNIT: usize = 16;

/// Faults that are served in place after a limit was met, before a move is tried again: nobody tells when a limit is
/// raised, and a move that finds no room takes translations from the device that it needs.
const IN_PLACE: usize = 64;

/// Who has a place.
pub(crate) trait Identity: Copy + PartialEq {
    /// Whether both are one user, who has one share.
    fn is_same_user(&self, other: &Self) -> bool;

    /// Whether what this one has is charged.
    fn is_charged(&self) -> bool;
}

/// One place.
#[derive(Clone, Copy)]
pub(crate) struct User<I> {
    id: Option<I>,
    contexts: usize,
    pages: usize,
    charged: usize,
    reserved: usize,
    /// As many faults are still served in place, since a limit kept the last move from what it wanted.
    limited: usize,
}

impl<I: Identity> User<I> {
    /// A place that is free.
    pub(crate) const FREE: Self = User {
        id: None,
        contexts: 0,
        pages: 0,
        charged: 0,
        reserved: 0,
        limited: 0,
    };

    fn is_charged(&self) -> bool {
        self.id.is_some_and(|id| id.is_charged())
    }

    /// Takes units off that are not needed, but for one where there is something; returns how many.
    fn take_spare(&mut self) -> usize {
        let used = self.pages + self.reserved;
        self.take_spare_but(usize::from(used > 0))
    }

    /// Takes units off that are not needed, but for `kept`; returns how many.
    fn take_spare_but(&mut self, kept: usize) -> usize {
        let used = self.pages + self.reserved;
        let spare = self.charged.saturating_sub(used) / UNIT;
        let units = spare.saturating_sub(kept);
        self.charged -= units * UNIT;
        units
    }

    fn is_unused(&self) -> bool {
        self.contexts == 0 && self.pages == 0 && self.reserved == 0 && self.charged == 0
    }
}

/// The users, in places of at most [`MOST_USERS`].
pub(crate) struct Users<S> {
    places: S,
}

impl<I: Identity, S: DerefMut<Target = [User<I>]>> Users<S> {
    /// `places` are all free, and at least one.
    pub(crate) fn new(places: S) -> Self {
        debug_assert!((1..=MOST_USERS).contains(&places.len()));
        Users { places }
    }

    /// Counts one more context of `id`; returns the place. None if what it has is to be charged and all places
    /// are taken.
    pub(crate) fn enter(&mut self, id: I) -> Option<u16> {
        let others = &self.places[1..];
        let theirs = others.iter().position(|user| user.id == Some(id));
        let free = || others.iter().position(|user| user.id.is_none());
        let place = match theirs.or_else(free) {
            Some(at) => at as u16 + 1,
            None if id.is_charged() => return None,
            None => NOBODY,
        };
        let user = &mut self.places[place as usize];
        if place != NOBODY {
            user.id = Some(id);
        }
        user.contexts += 1;
        Some(place)
    }

    /// Counts a context out.
    pub(crate) fn leave(&mut self, place: u16) {
        let contexts = &mut self.places[place as usize].contexts;
        *contexts = contexts.saturating_sub(1);
        self.clear(place);
    }

    /// Reserves `pages` for a move, as far as they are charged; returns how many more have to be charged.
    pub(crate) fn reserve(&mut self, place: u16, pages: usize) -> usize {
        let user = &mut self.places[place as usize];
        if !user.is_charged() {
            return 0;
        }
        let spare = user.charged.saturating_sub(user.pages + user.reserved);
        let reserved = pages.min(spare);
        user.reserved += reserved;
        pages - reserved
    }

    /// Counts units that were charged, of `wanted` ones.
    pub(crate) fn charged(&mut self, place: u16, units: usize, wanted: usize) {
        let user = &mut self.places[place as usize];
        user.charged += units * UNIT;
        user.limited = if units < wanted { IN_PLACE } else { 0 };
    }

    /// Whether a fault is to be served in place because of a limit; counts the fault.
    pub(crate) fn is_limited(&mut self, place: u16) -> bool {
        let limited = &mut self.places[place as usize].limited;
        let is_limited = *limited > 0;
        *limited = limited.saturating_sub(1);
        is_limited
    }

    /// Ends the reservation of pages that were not taken; returns the units to be given back.
    pub(crate) fn release(&mut self, place: u16, pages: usize) -> usize {
        let user = &mut self.places[place as usize];
        user.reserved = user.reserved.saturating_sub(pages);
        let units = user.take_spare();
        self.clear(place);
        units
    }

    /// Takes off all units that are not needed; returns how many are to be given back.
    pub(crate) fn trim(&mut self, place: u16) -> usize {
        self.places[place as usize].take_spare_but(0)
    }

    /// Counts pages that were given out.
    pub(crate) fn took(&mut self, place: u16, pages: usize) {
        let user = &mut self.places[place as usize];
        user.pages += pages;
        user.reserved = user.reserved.saturating_sub(pages);
    }

    /// Counts a page that came back; returns the units to be given back.
    pub(crate) fn gave(&mut self, place: u16) -> usize {
        let user = &mut self.places[place as usize];
        user.pages = user.pages.saturating_sub(1);
        user.limited = 0;
        let units = user.take_spare();
        self.clear(place);
        units
    }

    fn clear(&mut self, place: u16) {
        let user = &mut self.places[place as usize];
        if user.is_unused() {
            *user = User::FREE;
        }
    }

    /// Whose pages are to make room for the user at `place`, in a memory of `total` pages, and how many at
    /// most; none if this user has the fair share, or has reached a limit, or nobody has more.
    pub(crate) fn gives_way(&self, place: u16, total: usize) -> Option<(u16, usize)> {
        if self.places[place as usize].limited > 0 {
            return None;
        }
        let with_contexts = (0..self.places.len())
            .filter(|&at| self.places[at].contexts > 0)
            .filter(|&at| {
                !self
                    .of_same_user(at)
                    .any(|other| other < at && self.places[other].contexts > 0)
            });
        let share = total / with_contexts.count().max(1);
        let pages_of = |at: usize| self.of_same_user(at).map(|at| self.places[at].pages).sum();
        let mine: usize = pages_of(place as usize);
        let missing = share.checked_sub(mine).filter(|&missing| missing > 0)?;
        let holders = (0..self.places.len()).filter(|&at| self.places[at].pages > 0);
        let others = holders.filter(|&at| !self.is_same_user(at, place as usize));
        let (theirs, _, most): (usize, _, _) = others
            .map(|at| (pages_of(at), self.places[at].pages, at))
            .max()?;
        let pages = missing
            .min(theirs.saturating_sub(share))
            .min(self.places[most].pages);
        (pages > 0).then_some((most as u16, pages))
    }

    fn is_same_user(&self, one: usize, other: usize) -> bool {
        one == other
            || match (&self.places[one].id, &self.places[other].id) {
                (Some(one), Some(other)) => one.is_same_user(other),
                _ => false,
            }
    }

    /// The places in use of the user at `place`.
    fn of_same_user(&self, place: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.places.len()).filter(move |&at| self.is_same_user(at, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: usize = 1000;

    /// A user and a group; what is in group 0 is not charged.
    type Id = (u32, u32);

    impl Identity for Id {
        fn is_same_user(&self, other: &Self) -> bool {
            self.0 == other.0
        }

        fn is_charged(&self) -> bool {
            self.1 != 0
        }
    }

    fn users(places: usize) -> Users<Vec<User<Id>>> {
        Users::new(vec![User::FREE; places])
    }

    fn enter<S: DerefMut<Target = [User<Id>]>>(users: &mut Users<S>, user: u32) -> u16 {
        users
            .enter((user, 0))
            .expect("a place or none of their own")
    }

    #[test]
    fn the_one_who_holds_most_gives_way_down_to_the_fair_share() {
        let mut users = users(4);
        let (hog, late) = (enter(&mut users, 10), enter(&mut users, 11));
        users.took(hog, TOTAL);
        assert_eq!(users.gives_way(late, TOTAL), Some((hog, 500)));
        users.took(late, 400);
        assert_eq!(users.gives_way(late, TOTAL), Some((hog, 100)));
        (0..450).for_each(|_| assert_eq!(users.gave(hog), 0));
        assert_eq!(users.gives_way(late, TOTAL), Some((hog, 50)));
        users.took(late, 100);
        assert_eq!(users.gives_way(late, TOTAL), None);
        assert_eq!(users.gives_way(hog, TOTAL), None);
    }

    #[test]
    fn a_user_alone_displaces_nobody_of_their_own() {
        let mut users = users(4);
        let (one, again) = (enter(&mut users, 10), enter(&mut users, 10));
        assert_eq!(one, again);
        users.took(one, TOTAL);
        assert_eq!(users.gives_way(one, TOTAL), None);
    }

    #[test]
    fn pages_outlive_contexts_and_give_way_first() {
        let mut users = users(4);
        let (gone, one) = (enter(&mut users, 10), enter(&mut users, 11));
        let two = enter(&mut users, 12);
        users.took(gone, 600);
        users.leave(gone);
        users.took(one, 400);
        assert_eq!(users.gives_way(two, TOTAL), Some((gone, 100)));
        (0..600).for_each(|_| assert_eq!(users.gave(gone), 0));
        // Nothing is left of that user, whose place is another's now.
        assert_eq!(enter(&mut users, 13), gone);
    }

    #[test]
    fn who_finds_no_place_is_one_of_the_others() {
        let mut users = users(2);
        let (one, two) = (enter(&mut users, 10), enter(&mut users, 11));
        let three = enter(&mut users, 12);
        assert_eq!((one, two, three), (1, NOBODY, NOBODY));
        users.took(one, TOTAL);
        assert_eq!(users.gives_way(two, TOTAL), Some((one, 500)));
        users.leave(two);
        users.leave(three);
        assert_eq!(users.gives_way(NOBODY, TOTAL), None);
        // Nothing could be charged there.
        assert_eq!(users.enter((11, 1)), None);
    }

    #[test]
    fn a_user_in_several_groups_has_one_share() {
        let mut users = users(8);
        let groups = [0, 1, 2].map(|group| users.enter((10, group)).expect("a place"));
        let late = enter(&mut users, 11);
        users.took(groups[0], 500);
        users.took(groups[1], 300);
        users.took(groups[2], 200);
        // Of the place that has most, and so on.
        assert_eq!(users.gives_way(late, TOTAL), Some((groups[0], 500)));
        (0..300).for_each(|_| assert_eq!(users.gave(groups[0]), 0));
        assert_eq!(users.gives_way(late, TOTAL), Some((groups[1], 200)));
        assert_eq!(users.gives_way(groups[0], TOTAL), None);
    }

    #[test]
    fn pages_are_charged_in_units_before_they_are_taken_and_spare_ones_given_back() {
        let mut users = users(4);
        let place = users.enter((10, 1)).expect("a place");
        assert_eq!(users.reserve(place, 20), 20);
        users.charged(place, 2, 2);
        assert_eq!(users.reserve(place, 20), 0);
        users.took(place, 18);
        // Two were not needed: 14 are spare, less than a unit.
        assert_eq!(users.release(place, 2), 0);
        assert_eq!(users.reserve(place, 15), 1);
        assert_eq!(users.release(place, 14), 0);
        (0..17).for_each(|_| assert_eq!(users.gave(place), 0));
        assert_eq!(users.gave(place), 2);
        users.leave(place);
        assert_eq!(users.places[place as usize].id, None);
    }

    #[test]
    fn two_spare_units_are_one_too_many() {
        let mut users = users(4);
        let place = users.enter((10, 1)).expect("a place");
        users.charged(place, 4, 4);
        assert_eq!(users.reserve(place, 64), 0);
        users.took(place, 64);
        let back: Vec<usize> = (0..64).map(|_| users.gave(place)).collect();
        let at = |index: usize| back[index];
        assert_eq!((at(30), at(31), at(47), at(63)), (0, 1, 1, 2));
        assert_eq!(back.iter().sum::<usize>(), 4);
    }

    #[test]
    fn trimmed_nothing_is_charged_but_for_the_pages_there_are() {
        let mut users = users(4);
        let place = users.enter((10, 1)).expect("a place");
        users.charged(place, 3, 3);
        assert_eq!(users.reserve(place, 48), 0);
        users.took(place, 17);
        assert_eq!(users.trim(place), 0, "what is reserved is still needed");
        // 17 pages need two units; of 31 spare pages one unit is kept by itself.
        assert_eq!(users.release(place, 31), 0);
        assert_eq!(users.trim(place), 1);
        assert_eq!(users.trim(place), 0);
        assert_eq!(users.reserve(place, 16), 1);
    }

    #[test]
    fn nobody_gives_way_to_who_has_reached_a_limit() {
        let mut users = users(4);
        let (hog, late) = (
            enter(&mut users, 10),
            users.enter((11, 1)).expect("a place"),
        );
        users.took(hog, TOTAL);
        users.charged(late, 1, 2);
        assert_eq!(users.gives_way(late, TOTAL), None);
        users.charged(late, 1, 1);
        assert_eq!(users.gives_way(late, TOTAL), Some((hog, 500)));
    }

    #[test]
    fn after_a_limit_was_met_faults_are_served_in_place_for_a_while() {
        let mut users = users(4);
        let place = users.enter((10, 1)).expect("a place");
        assert!(!users.is_limited(place));
        users.charged(place, 1, 2);
        assert!((0..IN_PLACE).all(|_| users.is_limited(place)));
        assert!(!users.is_limited(place));
        users.charged(place, 0, 2);
        users.took(place, 16);
        assert!(users.is_limited(place));
        // There is room for the next one.
        users.gave(place);
        assert!(!users.is_limited(place));
        users.charged(place, 0, 1);
        users.charged(place, 1, 1);
        assert!(!users.is_limited(place));
    }

    #[test]
    fn nothing_is_reserved_for_who_is_not_charged() {
        let mut users = users(4);
        let place = enter(&mut users, 10);
        assert_eq!(users.reserve(place, 100), 0);
        users.took(place, 100);
        assert_eq!(users.release(place, 100), 0);
    }
}
