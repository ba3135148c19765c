// SPDX-License-Identifier: GPL-2.0

//! How much of the device memory each user has, and who gives way to whom.
//!
//! The fair share of a user is the memory, divided by the users who have contexts. A user who holds less and
//! finds no room may have pages of the one who holds most brought home, down to that one's share. Pages outlive
//! the contexts they were moved by, and stay that user's.
//! No kernel imports: `make test` runs the tests below on the host.

use core::ops::DerefMut;

/// Users who are told apart; whoever comes on top shares the first place with pages that are nobody's.
pub(crate) const MOST_USERS: usize = 256;

/// The place of those who are not told apart, and of pages that are nobody's.
pub(crate) const NOBODY: u16 = 0;

/// One user.
#[derive(Clone, Copy)]
pub(crate) struct User<I> {
    id: Option<I>,
    contexts: usize,
    pages: usize,
}

impl<I> User<I> {
    /// A place that is free.
    pub(crate) const FREE: Self = User {
        id: None,
        contexts: 0,
        pages: 0,
    };
}

/// The users, in places of at most [`MOST_USERS`].
pub(crate) struct Users<S> {
    places: S,
}

impl<I: Copy + PartialEq, S: DerefMut<Target = [User<I>]>> Users<S> {
    /// `places` are all free, and at least one.
    pub(crate) fn new(places: S) -> Self {
        debug_assert!((1..=MOST_USERS).contains(&places.len()));
        Users { places }
    }

    /// Counts one more context of the user `id`; returns the user's place.
    pub(crate) fn enter(&mut self, id: I) -> u16 {
        let others = &self.places[1..];
        let theirs = others.iter().position(|user| user.id == Some(id));
        let free = || others.iter().position(|user| user.id.is_none());
        let place = theirs.or_else(free).map_or(NOBODY, |at| at as u16 + 1);
        let user = &mut self.places[place as usize];
        if place != NOBODY {
            user.id = Some(id);
        }
        user.contexts += 1;
        place
    }

    /// Counts a context out.
    pub(crate) fn leave(&mut self, place: u16) {
        let contexts = &mut self.places[place as usize].contexts;
        *contexts = contexts.saturating_sub(1);
        self.clear(place);
    }

    /// Counts pages that were given out.
    pub(crate) fn took(&mut self, place: u16, pages: usize) {
        self.places[place as usize].pages += pages;
    }

    /// Counts a page that came back.
    pub(crate) fn gave(&mut self, place: u16) {
        let pages = &mut self.places[place as usize].pages;
        *pages = pages.saturating_sub(1);
        self.clear(place);
    }

    fn clear(&mut self, place: u16) {
        let user = &mut self.places[place as usize];
        if user.contexts == 0 && user.pages == 0 {
            user.id = None;
        }
    }

    /// Whose pages are to make room for the user at `place`, in a memory of `total` pages, and how many at
    /// most; none if this user has the fair share, or nobody has more.
    pub(crate) fn gives_way(&self, place: u16, total: usize) -> Option<(u16, usize)> {
        let with_contexts = self.places.iter().filter(|user| user.contexts > 0);
        let share = total / with_contexts.count().max(1);
        let missing = share.checked_sub(self.places[place as usize].pages)?;
        let places = self.places.iter().enumerate();
        let (most, user) = places.max_by_key(|(_, user)| user.pages)?;
        let pages = missing.min(user.pages.saturating_sub(share));
        (pages > 0 && most != place as usize).then_some((most as u16, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: usize = 1000;

    fn users(places: usize) -> Users<Vec<User<u32>>> {
        Users::new(vec![User::FREE; places])
    }

    #[test]
    fn the_one_who_holds_most_gives_way_down_to_the_fair_share() {
        let mut users = users(4);
        let (hog, late) = (users.enter(10), users.enter(11));
        users.took(hog, TOTAL);
        assert_eq!(users.gives_way(late, TOTAL), Some((hog, 500)));
        users.took(late, 400);
        assert_eq!(users.gives_way(late, TOTAL), Some((hog, 100)));
        (0..450).for_each(|_| users.gave(hog));
        assert_eq!(users.gives_way(late, TOTAL), Some((hog, 50)));
        users.took(late, 100);
        assert_eq!(users.gives_way(late, TOTAL), None);
        assert_eq!(users.gives_way(hog, TOTAL), None);
    }

    #[test]
    fn a_user_alone_displaces_nobody_of_their_own() {
        let mut users = users(4);
        let (one, again) = (users.enter(10), users.enter(10));
        assert_eq!(one, again);
        users.took(one, TOTAL);
        assert_eq!(users.gives_way(one, TOTAL), None);
    }

    #[test]
    fn pages_outlive_contexts_and_give_way_first() {
        let mut users = users(4);
        let (gone, one, two) = (users.enter(10), users.enter(11), users.enter(12));
        users.took(gone, 600);
        users.leave(gone);
        users.took(one, 400);
        assert_eq!(users.gives_way(two, TOTAL), Some((gone, 100)));
        (0..600).for_each(|_| users.gave(gone));
        // Nothing is left of that user, whose place is another's now.
        assert_eq!(users.enter(13), gone);
    }

    #[test]
    fn who_finds_no_place_is_one_of_the_others() {
        let mut users = users(2);
        let (one, two, three) = (users.enter(10), users.enter(11), users.enter(12));
        assert_eq!((one, two, three), (1, NOBODY, NOBODY));
        users.took(one, TOTAL);
        assert_eq!(users.gives_way(two, TOTAL), Some((one, 500)));
        users.leave(two);
        users.leave(three);
        assert_eq!(users.gives_way(NOBODY, TOTAL), None);
    }
}
