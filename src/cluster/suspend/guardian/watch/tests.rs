use super::super::super::faulty::{self, Answer, Pachyderm, Request};
use super::super::super::{Kind, Record};
use super::*;
use crate::monitor::Silent;

/// A cluster that a run has left in this state, with so many pachd of two. Nobody has the Lease.
async fn left(state: State, pachd: i32) -> (Pachyderm, Uuid) {
    let pachyderm = Pachyderm::new(&[("pachd", pachd), ("pachw", 0)]);
    let run = Uuid::new_v4();
    let mut record = Record::new(run, "me@here", Kind::Run);
    record.state = state;
    record.deployments = [("pachd", 2), ("pachw", 1)].map(|(name, count)| (name.to_owned(), count)).into();
    let cluster = pachyderm.server(|_, _| None).cluster();
    Records(&cluster).create(&record).await.unwrap();
    (pachyderm, run)
}

/// How its guardian ends, at a server that answers some requests otherwise.
async fn guarded(
    pachyderm: &Pachyderm,
    run: Uuid,
    odd: impl Fn(&Request, u32) -> Option<Answer> + Send + Sync + 'static,
) -> End {
    let cluster = pachyderm.server(odd).cluster();
    let options = Options { lease_duration: Duration::from_secs(1), ..faulty::options() };
    let mut guardian = Guardian {
        cluster: &cluster,
        options: &options,
        monitor: &Silent,
        run,
        me: "guardian",
        watched: Store::new(&cluster, lease::RUN),
        seen: Stillness::default(),
        deadline: None,
    };
    tokio::time::timeout(Duration::from_secs(60), guardian.run()).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_was_brought_back_and_then_set_lower_stays_so() {
    let cases = [(State::Suspended, 0, 2), (State::Suspended, 1, 2), (State::Resuming, 0, 2), (State::Resuming, 1, 1)];
    for (state, pachd, becomes) in cases {
        let (pachyderm, run) = left(state, pachd).await;
        assert_eq!(guarded(&pachyderm, run, |_, _| None).await, End::Resumed);
        let now = (pachyderm.replicas("pachd"), pachyderm.has("/pacharc-suspended"));
        assert_eq!(now, (becomes, false), "{state:?} with {pachd}");
    }
}
