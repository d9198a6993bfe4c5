//! Messages about events and those that are told of them.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Events",
    "What `mtpolicyd events` lists, and the receivers of the `<Notify>` blocks.";

    /// Something begins that needs a person, or has ended. The kinds are those of the option `events` of
    /// `<Notify>`; most have a line of their own, and then this one has only what it is about. `mtpolicyd
    /// events` says what to do.
    notice event(kind, state, about) = "event {kind} {state}: {about}";
    /// The receiver can't be reached, or does not take an event. It is tried again until it does, at first
    /// after a second, then after up to a minute; up to 256 events wait for it. Logged once, until it takes
    /// events again.
    warning not_taken(receiver, why) = "notify {receiver}: an event was not taken, and is sent again: {why}";
    /// The receiver takes events again, and gets those that waited. Nothing to do.
    notice taken_again(receiver) = "notify {receiver}: events are taken again";
    /// The receiver has refused this event, or its program has failed. It is not sent again; `mtpolicyd
    /// events` has it. `mtpolicyd events test NAME` tries the receiver.
    error given_up(receiver, kind, why) = "notify {receiver}: event {kind} is given up: {why}";
    /// More events came than may wait for a receiver that takes none. The number is that of all since the
    /// start.
    warning dropped(receiver, count) = "notify {receiver}: {count} events were dropped, since too many wait";
    /// More events came at once than could be looked at.
    warning lost(count) = "{count} events were lost, since too many came at once";
    /// The daemon stops, or the block was removed, before the receiver has taken everything.
    warning left(receiver, count) = "notify {receiver}: {count} events were not delivered";
    /// Somebody has asked for an event that says nothing, with `mtpolicyd events test`. Nothing to do.
    notice test_requested(user) = "test of the receivers of events requested by {user}";
}
