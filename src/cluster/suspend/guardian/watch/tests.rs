use super::super::super::faulty::{self, Answer, Pachyderm, Request};
use super::super::super::{Kind, Record};
use super::*;
use crate::monitor::Silent;

/// Of Leases that lapse.
const LEASE: Duration = Duration::from_secs(1);

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
    tokio::time::timeout(Duration::from_secs(60), guard(pachyderm, run, odd)).await.unwrap()
}

async fn guard(
    pachyderm: &Pachyderm,
    run: Uuid,
    odd: impl Fn(&Request, u32) -> Option<Answer> + Send + Sync + 'static,
) -> End {
    let cluster = pachyderm.server(odd).cluster();
    let options = Options { lease_duration: LEASE, ..faulty::options() };
    let mut guardian = Guardian {
        cluster: &cluster,
        options: &options,
        monitor: &Silent,
        run,
        me: "guardian",
        watched: Store::new(&cluster, lease::RUN),
        seen: Stillness::default(),
        refused: Stillness::default(),
        deadline: None,
    };
    guardian.run().await.unwrap()
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

#[tokio::test]
async fn a_lease_that_cannot_be_had_is_done_without() {
    for (writes_alone, is_there, code) in
        [(true, true, 403), (true, true, 500), (true, false, 403), (false, true, 403), (false, false, 500)]
    {
        let told = format!("{writes_alone} {is_there} {code}");
        let (pachyderm, run) = left(State::Suspended, 0).await;
        let cluster = pachyderm.server(|_, _| None).cluster();
        if is_there {
            Store::new(&cluster, lease::RUN).create("gone", LEASE, BTreeMap::new()).await.unwrap();
        }
        let odd = move |request: &Request, _| {
            let is_refused = request.path.contains("/leases") && !(writes_alone && request.method == "GET");
            is_refused.then_some(Answer::Status(code))
        };
        let begun = boottime();
        assert_eq!(guarded(&pachyderm, run, odd).await, End::Resumed, "{told}");
        assert!(boottime().saturating_sub(begun) >= LEASE, "{told}: too early");
        let now = ["pachd", "pachw"].map(|name| pachyderm.replicas(name));
        assert_eq!((now, pachyderm.has("/pacharc-suspended")), ([2, 1], false), "{told}");
    }
}

#[tokio::test]
async fn a_run_that_lives_is_left_alone_though_its_lease_cannot_be_taken() {
    let (pachyderm, run) = left(State::Suspended, 0).await;
    let cluster = pachyderm.server(|_, _| None).cluster();
    let store = Store::new(&cluster, lease::RUN);
    let mut lease = store.create("me@here", LEASE, BTreeMap::new()).await.unwrap();
    let odd = |request: &Request, _| {
        (request.path.contains("/leases") && request.method != "GET").then_some(Answer::Status(403))
    };
    let renewals = async {
        for _ in 0..40 {
            tokio::time::sleep(LEASE / 10).await;
            lease = store.renew(&lease).await.unwrap();
        }
    };
    tokio::select! {
        end = guard(&pachyderm, run, odd) => panic!("{end:?}"),
        () = renewals => {}
    }
    assert_eq!(pachyderm.replicas("pachd"), 0);
}
