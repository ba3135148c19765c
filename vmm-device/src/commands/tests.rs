// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use super::*;
use crate::resolve::tags::Answered;

fn id(number: u32) -> ContextId {
    ContextId {
        number,
        generation: 1,
    }
}

/// Two open contexts, and commands of theirs by name.
fn with(submitted: &[(u32, char)]) -> Commands<char> {
    let mut commands = Commands::new(1, 8);
    (0..2).for_each(|number| commands.open(id(number)));
    for &(number, name) in submitted {
        let refused = commands.submit(0, 0, id(number), name, &mut Vec::new());
        assert_eq!(refused, Ok(()));
    }
    commands
}

fn ends(effects: &[Effect<char>]) -> Vec<(char, End)> {
    let end = |effect: &Effect<char>| match effect {
        Effect::End(held, end, _) => Some((held.job, *end)),
        _ => None,
    };
    effects.iter().filter_map(end).collect()
}

#[test]
fn contexts_take_turns_however_many_commands_they_have() {
    let mut commands = with(&[(0, 'a'), (0, 'b'), (0, 'c'), (1, 'z')]);
    let mut order = Vec::new();
    for _ in 0..6 {
        if let Some((id, held)) = commands.take(0, 0, &mut Vec::new()) {
            order.push(held.job);
            commands.settle(id, held, Outcome::More, &mut Vec::new());
        }
    }
    assert_eq!(order, ['a', 'z', 'b', 'z', 'c', 'z']);
}

#[test]
fn abort_ends_what_runs_no_step_at_once_and_the_rest_after_it() {
    let mut commands = with(&[(0, 'a'), (0, 'b'), (1, 'z')]);
    let taken = commands.take(0, 0, &mut Vec::new());
    let mut effects = Vec::new();
    commands.abort(id(0), &mut effects);
    assert_eq!(ends(&effects), [('b', End::Aborted)]);
    assert!(!commands.drained(id(0)));
    // One that comes now is none of them.
    assert!(commands.submit(0, 0, id(0), 'n', &mut effects).is_ok());
    if let Some((id, held)) = taken {
        commands.settle(id, held, Outcome::More, &mut effects);
    }
    assert_eq!(ends(&effects), [('b', End::Aborted), ('a', End::Aborted)]);
    for effect in effects {
        assert!(!commands.drained(id(0)));
        if let Effect::End(held, ..) = effect {
            commands.released(&held.split().1);
        }
    }
    assert!(commands.drained(id(0)));
}

#[test]
fn nothing_comes_into_a_context_that_closes() {
    let mut commands = with(&[(0, 'a')]);
    let mut effects = Vec::new();
    assert!(commands.close(id(0), &mut effects));
    assert!(!commands.close(id(0), &mut effects));
    let refused = commands.submit(0, 0, id(0), 'b', &mut effects);
    assert_eq!(refused, Err('b'));
    assert_eq!(ends(&effects), [('a', End::Aborted)]);
}

#[test]
fn commands_of_an_earlier_life_go_without_an_answer() {
    let mut commands = with(&[(0, 'a'), (0, 'b')]);
    let taken = commands.take(0, 0, &mut Vec::new());
    let mut effects = Vec::new();
    assert!(commands.take(0, 1, &mut effects).is_none());
    if let Some((id, held)) = taken {
        commands.settle(id, held, Outcome::Ended(End::Status(0)), &mut effects);
    }
    // Nor does what was read before the change come in after it.
    assert!(commands.submit(0, 0, id(0), 'c', &mut effects).is_ok());
    let dropped = effects.iter().filter(|it| matches!(it, Effect::Drop(_)));
    assert_eq!(dropped.count(), 3);
    assert!(ends(&effects).is_empty());
}

#[test]
fn what_a_command_that_has_ended_asked_is_nobodys_and_what_it_had_not_is_not_asked() {
    let mut commands = with(&[(0, 'a')]);
    commands.resolve.set_allocation(2);
    let wants = [0, 1 << 21].map(|va| Want {
        miss: Miss {
            va,
            bytes: 1,
            access: Access::READ,
            around: false,
        },
        ahead: false,
    });
    let mut effects = Vec::new();
    if let Some((id, held)) = commands.take(0, 0, &mut effects) {
        commands.settle(id, held, Outcome::Missing(wants.to_vec()), &mut effects);
    }
    // One of them has to wait.
    let sent = commands.request(Instant::now());
    assert_eq!(commands.request(Instant::now()), None);
    assert!(commands.resolve.has_due());
    commands.abort(id(0), &mut effects);
    assert_eq!(ends(&effects), [('a', End::Aborted)]);
    assert!(!commands.resolve.has_due());
    let answered = sent.map(|request| commands.resolve.answer(id(0), request.tag));
    assert_eq!(answered, Some(Answered::Aborted));
}
