//! A state of the model: what the server holds, what each host is about, and which calls are
//! under way.

use super::list::List;

/// The number of hosts.
pub const HOSTS: usize = 3;
/// Updates that a host may have to make, at most.
pub const UPDATES: usize = 2;

/// The number of a turn, or of a fence. 0: none.
pub type Number = u8;
/// A file's inode. A staged name is called after the inode it was made for.
pub type Inode = u8;
/// An update: 1 + host * [`UPDATES`] + its place in the host's list. 0: a hole.
pub type Record = u8;

/// No inode.
pub const NONE: Inode = Inode::MAX;

/// The record that a host's update writes.
pub fn record(host: usize, update: u8) -> Record {
    1 + (host * UPDATES) as u8 + update
}

/// Whose claim a turn is linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// The one that this host uses.
    Host(u8),
    /// One that its host has given up, with a turn that it gave back.
    Nobody,
}

/// How a turn ended: whose claim its `done` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ended {
    /// The holder's.
    Clean,
    /// Another, be it that of a breaker or the one by which the holder gave the turn back.
    Broken,
}

/// The names of one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Turn {
    /// `.X.turn.N`
    pub taken: Option<Owner>,
    /// `.X.done.N`
    pub done: Option<Ended>,
}

/// What a note says, and, once published, a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Fence {
    /// The turn under which it was made.
    pub turn: Number,
    /// The inode that is given up.
    pub old: Inode,
    /// How much of it was copied.
    pub size: u8,
    /// The staged name of the copy, and its inode; the note has the same random number.
    pub stage: Inode,
}

/// What stands in a file: records of one length, one for each half byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Contents {
    /// How many.
    pub len: u8,
    records: u64,
}

impl Contents {
    /// The record at a place.
    pub fn get(self, place: u8) -> Record {
        (self.records >> (4 * place)) as u8 & 15
    }

    /// Writes a record at a place; what lies before it and was never written is a hole.
    pub fn set(&mut self, place: u8, record: Record) {
        assert!(place < 16, "a file of the model is too long");
        self.records &= !(15 << (4 * place));
        self.records |= u64::from(record) << (4 * place);
        self.len = self.len.max(place + 1);
    }

    /// The first records.
    pub fn cut(self, len: u8) -> Contents {
        Contents {
            len,
            records: self.records & ((1u64 << (4 * len)) - 1),
        }
    }

    /// All records.
    pub fn iter(self) -> impl Iterator<Item = Record> {
        (0..self.len).map(move |place| self.get(place))
    }

    /// The records under other names.
    pub fn rename(self, new: impl Fn(Record) -> Record) -> Contents {
        let mut renamed = Contents::default();
        for place in 0..self.len {
            renamed.set(place, new(self.get(place)));
        }
        renamed
    }
}

/// A call that changes something on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// `link(claim, .X.turn.n)`
    Take(Number, Owner),
    /// `link(claim, .X.done.n)`, by the holder, a breaker, or with the holder's other claim.
    End(Number, Ended),
    /// `unlink(.X.note.R)`
    RemoveNote(Inode),
    /// `unlink(.X.stage.R)`
    RemoveStage(Inode),
    /// Makes `.X.copy.R`, with the first records of an inode.
    Copy(Inode, Inode, u8),
    /// `rename(.X.copy.R, .X.stage.R)`
    StageCopy(Inode),
    /// Makes `.X.note.R`.
    Note(Fence),
    /// `link(.X.note.R, .X.fence.K)`
    Publish(Inode, Number),
    /// `rename(.X.stage.R, X)`, of a fence.
    Complete(Inode),
    /// Writes a record to an inode, at a place, under a turn.
    Write(Inode, u8, Record, Number),
    /// Writes a record over the first one of an inode, under a turn.
    Overwrite(Inode, Record, Number),
    /// `rename(P, .X.stage.R)`: P holds the record.
    Stage(Inode, Record),
    /// `rename(.X.stage.R, P)`
    Unstage(Inode),
    /// `rename(.X.stage.R, X)`, of a program's file, under a turn.
    Replace(Inode, Number),
    /// `rename(P, X)`, where files are not staged.
    Rename(Inode, Record, Number),
    /// `unlink(.X.turn.n)`
    RemoveTurn(Number),
    /// `unlink(.X.done.n)`
    RemoveDone(Number),
}

/// What the server said to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// It was done.
    Done,
    /// EEXIST, and the name is not the host's own.
    Exists,
    /// ENOENT
    Gone,
}

/// Where a host stands: the step that comes next, when the call under way is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum At {
    /// Holds no turn.
    #[default]
    Idle,
    /// Has asked for a turn.
    Take,
    /// Must look whether the turn counts.
    Confirm,
    /// Holds a turn; must see how the one before it ended.
    Inspect,
    /// Mending: removes the notes of others.
    Retract,
    /// Mending: looks at the newest fence.
    Newest,
    /// Mending: removes what others have staged.
    Sweep,
    /// Mending: copies.
    Copy,
    /// Mending: gives the copy its staged name.
    StageCopy,
    /// Mending: writes the note.
    Note,
    /// Mending: publishes the fence.
    Publish,
    /// Mending: puts the copy in the file's place.
    Complete,
    /// May update.
    Ready,
    /// Found the record of a lost turn in the file.
    Found,
    /// Found that the record of a lost turn is not in the file, and must append it again.
    Redo,
    /// Has sent an append.
    Write,
    /// Has staged a program's file.
    Replace,
    /// Has sent it to the file's place.
    Replaced,
    /// Must end the turn.
    End,
    /// Must give the turn back.
    GiveBack,
    /// Crashed.
    Dead,
}

/// What a host knows of the newest turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Known {
    /// Its number.
    pub n: Number,
    /// It is over.
    pub over: bool,
    /// The newest turn that was over when this was seen. Who knows that the end of a later one
    /// is some seconds old knows that this knowledge is, too.
    pub seen: Number,
    /// Too old to be acted upon.
    pub old: bool,
}

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    /// Where it stands.
    pub at: At,
    /// The turn it holds, asks for, or may have taken by a call whose answer was lost.
    pub n: Number,
    /// Its last sign of life is so old that others may break its turn.
    pub slow: bool,
    /// It has updated something under this turn.
    pub began: bool,
    /// Its claim looks old to others, although it does not know it.
    pub unseen: bool,
    /// The update it is about.
    pub next: u8,
    /// Where that update was sent to, under a turn that was lost.
    pub lost: Option<(Number, Inode, u8)>,
    /// The staged name it has made.
    pub stage: Inode,
    /// The inode it copies, and how much of it.
    pub copied: (Inode, u8),
    /// The number of the fence it will publish.
    pub fence: Number,
    /// Names from a listing that it still has to remove.
    pub listed: u16,
    /// What it knows of the newest turn; only where clean-up is modelled.
    pub known: Option<Known>,
    /// The call under way.
    pub call: Option<Call>,
    /// What was answered, and not yet heard.
    pub answer: Option<Answer>,
}

impl Default for Host {
    fn default() -> Self {
        Host {
            at: At::Idle,
            n: 0,
            slow: false,
            began: false,
            unseen: false,
            next: 0,
            lost: None,
            stage: NONE,
            copied: (NONE, 0),
            fence: 0,
            listed: 0,
            known: None,
            call: None,
            answer: None,
        }
    }
}

/// Things that may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Faults {
    /// Hosts that crash.
    pub crashes: u8,
    /// Turns that become slow.
    pub slows: u8,
    /// Calls that are executed once more.
    pub repeats: u8,
    /// Replies that are lost: the host sees an error, and the call may still be executed.
    pub losses: u8,
}

/// A state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// The names of turn 1, 2, ...
    pub turns: List<Turn, 16>,
    /// Fence 1, 2, ...
    pub fences: List<Fence, 8>,
    /// The notes that have a name.
    pub notes: List<Fence, 8>,
    /// The staged names, and their inodes.
    pub staged: List<(Inode, Inode), 8>,
    /// Copies that have no staged name yet: their numbers, and their inodes.
    pub made: List<(Inode, Inode), 8>,
    /// The inode of the file.
    pub x: Inode,
    /// What the inodes hold.
    pub files: List<Contents, 16>,
    /// The hosts.
    pub hosts: [Host; HOSTS],
    /// Calls that nobody waits for: they may be executed late.
    pub stray: List<Stray, 6>,
    /// Updates that were acknowledged, by bits.
    pub acknowledged: u16,
    /// Updates that a later turn's replacement has legitimately put an end to, by bits.
    pub replaced: u16,
    /// The newest turn under which something was updated.
    pub updated: Number,
    /// What may still go wrong.
    pub faults: Faults,
    /// What must never happen, has.
    pub wrong: Wrong,
    /// Turns that were held, by bits; only where clean-up is modelled.
    pub used: u32,
}

/// A call that nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stray {
    /// The call.
    pub call: Call,
    /// It was executed before, and answered.
    pub again: bool,
}

impl Default for Stray {
    fn default() -> Self {
        Stray {
            call: Call::Complete(NONE),
            again: true,
        }
    }
}

/// What must never happen and cannot be seen in a later state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wrong {
    /// A record was written over another.
    pub overwritten: bool,
    /// A turn's number was used twice.
    pub reused: bool,
    /// The fate of a record could not be found out.
    pub unknown: bool,
}

impl State {
    /// The newest turn, by a listing: the highest number there is.
    pub fn newest(&self) -> (Number, bool) {
        let taken = self.turns.iter().rposition(|turn| turn.taken.is_some());
        let done = self.turns.iter().rposition(|turn| turn.done.is_some());
        let number = |place: Option<usize>| place.map_or(0, |place| place as Number + 1);
        let (taken, done) = (number(taken), number(done));
        (taken.max(done), done >= taken)
    }

    /// The names of a turn.
    pub fn turn(&self, n: Number) -> Turn {
        let place = usize::from(n).checked_sub(1);
        let turn = place.and_then(|place| self.turns.get(place));
        turn.copied().unwrap_or_default()
    }

    /// The names of a turn, to be changed.
    pub fn turn_mut(&mut self, n: Number) -> &mut Turn {
        while self.turns.len() < usize::from(n) {
            self.turns.push(Turn::default());
        }
        &mut self.turns[usize::from(n) - 1]
    }

    /// The inode of a staged name.
    pub fn staged(&self, stage: Inode) -> Option<Inode> {
        let found = self.staged.iter().find(|(name, _)| *name == stage);
        found.map(|(_, inode)| *inode)
    }

    /// The newest fence, if it is published and its copy is not yet in the file's place.
    pub fn unfinished(&self) -> Option<Fence> {
        let fence = *self.fences.last()?;
        (self.staged(fence.stage) == Some(fence.stage)).then_some(fence)
    }

    /// The inode that the file leads to, for a reader that comes after the mend that is under way.
    pub fn view(&self) -> Inode {
        self.unfinished().map_or(self.x, |fence| fence.stage)
    }

    /// What that reader finds.
    pub fn contents(&self) -> Contents {
        self.files[usize::from(self.view())]
    }

    /// A listing shows that turn `n` is the newest, and not over.
    pub fn stands(&self, n: Number) -> bool {
        self.newest() == (n, false)
    }

    /// A new inode.
    pub fn new_inode(&mut self) -> Inode {
        self.files.push(Contents::default()) as Inode
    }
}
