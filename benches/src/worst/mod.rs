//! The worst single step of the engine for each operator command and each input, with 100,000
//! requests that wait, 10,000 clients, 3,000 services and workers, 1,000 hosts: its time, and its
//! instructions, counted by callgrind. `count` limits them.

mod commands;
mod count;
pub mod crowd;
mod first_topics;
mod inputs;
mod topics;

use crowd::{Chosen, Cost, Crowd};

pub use count::{check, child};

type Act = Box<dyn Fn(&mut Crowd) -> Result<(), String>>;

/// Something that happens to the crowd.
pub struct Case {
    /// Its name in the table.
    pub name: String,
    act: Act,
}

/// What a case cost.
#[derive(Debug)]
pub struct Row {
    /// The name of the case.
    pub name: String,
    /// How many steps it took.
    pub steps: usize,
    /// Nanoseconds of its worst step.
    pub nanos: u64,
    /// The numbers of the steps that are worth counting: the slowest ones.
    pub slowest: Vec<usize>,
}

/// How many of the slowest steps of a case are counted, besides the first and the last.
const SLOWEST: usize = 3;

fn row(name: &str, mut costs: Vec<Cost>) -> Row {
    let steps = costs.len();
    costs.sort_by_key(|cost| std::cmp::Reverse(cost.nanos));
    let slowest = costs.iter().take(SLOWEST).map(|cost| cost.index);
    let slowest = slowest.chain([0, steps.saturating_sub(1)]).collect();
    Row { name: name.to_owned(), steps, nanos: costs.first().map_or(0, |c| c.nanos), slowest }
}

/// Runs all cases. `counted`: only these steps are counted, under callgrind.
///
/// # Errors
/// The engine does not do what a case needs.
pub fn run(counted: Option<&Chosen>, tell: fn(&Row)) -> Result<(Vec<Row>, Vec<String>), String> {
    let mut rows = Vec::new();
    let mut order = Vec::new();
    let mut all = |crowd: &mut Crowd, cases: Vec<Case>| -> Result<(), String> {
        for case in cases {
            let costs = crowd.case(&case.name, &case.act)?;
            let row = row(&case.name, costs);
            tell(&row);
            rows.push(row);
        }
        if let Some((_, done)) = &mut crowd.notes.counted {
            order.append(done);
        }
        Ok(())
    };
    all(&mut Crowd::empty(counted.cloned()), inputs::start())?;
    all(&mut Crowd::configured(counted.cloned()), vec![inputs::up()])?;
    let mut crowd = Crowd::new(counted.cloned())?;
    all(&mut crowd, commands::cases(commands::When::First))?;
    all(&mut crowd, inputs::single())?;
    all(&mut crowd, inputs::many())?;
    all(&mut crowd, inputs::files())?;
    for case in commands::cases(commands::When::Late) {
        all(&mut crowd, vec![case])?;
        crowd.fill()?;
    }
    all(&mut crowd, commands::cases(commands::When::Stop))?;
    all(&mut crowd, vec![commands::start_again()])?;
    crowd.fill()?;
    all(&mut crowd, inputs::ends())?;
    drop(crowd);
    let mut crowd = Crowd::new(counted.cloned())?;
    all(&mut crowd, inputs::last())?;
    drop(crowd);
    let mut crowd = Crowd::new(counted.cloned())?;
    all(&mut crowd, topics::cases())?;
    drop(crowd);
    let mut crowd = Crowd::new(counted.cloned())?;
    all(&mut crowd, commands::cases(commands::When::Last))?;
    Ok((rows, order))
}
