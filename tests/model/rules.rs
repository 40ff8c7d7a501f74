//! The rules of the protocol, each of which can be taken out.

/// Which rules hold. A field that is true is a rule that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Who takes a turn after a broken one fences before it updates anything.
    pub inspect: bool,
    /// A fence is put only if there is none of its number.
    pub put_if_absent: bool,
    /// What became of a record whose turn was lost is read from the fence.
    pub fate: Fate,
    /// A reply that comes late counts only after a look whether the turn is over.
    pub look_when_late: bool,
    /// A turn under which a call was given up without an answer is given back: the call may still
    /// be executed.
    pub give_back_unanswered: bool,
    /// Under a turn that was slow no update is started any more.
    pub slow_turn_stops: bool,
    /// A turn that is given back with the duty to fence does not look as if it had ended well.
    pub give_back_looks_broken: bool,
    /// A turn is let go by a name that is made, not by one that is removed and used again.
    pub end_makes_a_name: bool,
    /// The newest `done` is never removed.
    pub newest_done_stays: bool,
    /// What is known of the newest turn is acted upon for a moment only.
    pub knowledge_ages: bool,
    /// A `link` that was slow counts only after a look whether its turn is the newest.
    pub confirm: bool,
    /// What was staged by earlier holders is removed before the copy is made.
    pub sweep: bool,
    /// A file that replaces another is staged first, under a name that is used once.
    pub stage: bool,
    /// The notes of earlier fencers are removed before the newest fence is looked for.
    pub retract: bool,
    /// A fence that somebody else published is completed.
    pub complete_others: bool,
    /// Who completes somebody else's fence makes one of its own as well.
    pub fence_after_completing: bool,
    /// Fences have consecutive numbers, not those of the turns that made them.
    pub fences_consecutive: bool,
    /// Only a turn whose holder is slow or dead is broken.
    pub break_only_slow: bool,
    /// The sign of life comes before the turn is taken.
    pub refresh_before_take: bool,
    /// Names found in a listing are removed only if the turn is not slow after the listing.
    pub look_before_removing: bool,
    /// A turn that was taken by a call whose answer was lost keeps the age of the sign of life
    /// that came before that call.
    pub late_take_keeps_age: bool,
    /// The copy is made under a name of its own and then renamed to the staged one, so that no
    /// call that makes a file ever makes one of a name that will be renamed over X.
    pub copy_is_renamed: bool,
    /// The look at a turn that was slow is a listing: the turn must be the newest, too.
    pub look_lists: bool,
    /// That a slow turn was ended, or given back, does not say that it was the newest.
    pub end_when_slow_says_nothing: bool,
    /// That a name of an old turn still stands does not make it the newest turn.
    pub standing_is_not_newest: bool,
}

/// What a host that lost a turn does with the record whose fate is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It reads the fence.
    Read,
    /// It appends the record again.
    Redo,
    /// It acknowledges the record.
    Acknowledge,
}

impl Rules {
    /// The whole protocol.
    pub const ALL: Rules = Rules {
        inspect: true,
        put_if_absent: true,
        fate: Fate::Read,
        look_when_late: true,
        give_back_unanswered: true,
        slow_turn_stops: true,
        give_back_looks_broken: true,
        end_makes_a_name: true,
        newest_done_stays: true,
        knowledge_ages: true,
        confirm: true,
        sweep: true,
        stage: true,
        retract: true,
        complete_others: true,
        fence_after_completing: true,
        fences_consecutive: true,
        break_only_slow: true,
        refresh_before_take: true,
        look_before_removing: true,
        late_take_keeps_age: true,
        copy_is_renamed: true,
        look_lists: true,
        end_when_slow_says_nothing: true,
        standing_is_not_newest: true,
    };
}
