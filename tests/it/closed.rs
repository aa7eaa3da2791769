//! `verify --level closed`: from the bundle alone, what the source lacked, and whom it hurts.

use crate::support::cluster::Cluster;
use crate::support::program::Desk;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_lacked_is_told_from_the_bundle_alone() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "verify_closed").await else { return };
    let verify = |bundle: &str| desk.run(["verify", bundle, "--identity", "key.txt", "--level", "closed", "--json"]);
    desk.backup(&cluster.source(), "whole.pacharc", &[]).code(0);
    verify("whole.pacharc").code(0);
    let text = desk.run(["verify", "whole.pacharc", "--identity", "key.txt", "--level", "closed"]).code(0);
    text.says("sound").says("every live object of the dump is in it");

    let live = cluster.live().await;
    let (gone, flipped, emptied) = (&live[3], &live[7], &live[11]);
    cluster.bucket.delete(gone).await.unwrap();
    cluster.flip(flipped).await;
    cluster.bucket.put(emptied, Vec::new().into()).await.unwrap();
    desk.backup(&cluster.source(), "lacking.pacharc", &[]).code(4);
    let run = verify("lacking.pacharc").code(4);
    let outcome: serde_json::Value = serde_json::from_str(run.text().lines().last().unwrap()).unwrap();
    let outcome = &outcome["outcome"];
    assert_eq!((&outcome["verdict"], &outcome["source_damages"]), (&"incomplete".into(), &3.into()), "{outcome}");
    for (key, problem) in [(gone, "no such live object"), (flipped, "not what its key promises"), (emptied, "not what")]
    {
        let subject = format!("objects/{key}");
        let damage = outcome["source"].as_array().unwrap().iter().find(|damage| damage["subject"] == *subject);
        let damage = damage.unwrap_or_else(|| panic!("{subject}: {outcome}"));
        assert!(damage["problem"].as_str().unwrap().contains(problem), "{damage}");
        // What psql says of the tracker's graph, which pacharc walks itself.
        let expected = cluster.server.psql(&cluster.database, &hurt(key)).unwrap();
        let hurts: Vec<&str> =
            damage["hurts"].as_array().unwrap().iter().map(|commit| commit.as_str().unwrap()).collect();
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        assert!(!expected.is_empty() && hurts == expected[..expected.len().min(20)], "{hurts:?} {expected:?}");
        assert_eq!(damage["hurts_count"], expected.len(), "{damage}");
    }
}

/// The commits above the chunk of an object, as pachctl names them.
fn hurt(key: &str) -> String {
    let chunk = key.strip_prefix("chunk/").unwrap().split('.').next().unwrap();
    format!(
        "WITH RECURSIVE above(int_id) AS (
             SELECT int_id FROM storage.tracker_objects WHERE str_id = 'chunk/{chunk}'
             UNION SELECT r.from_id FROM storage.tracker_refs r JOIN above a ON r.to_id = a.int_id)
         SELECT DISTINCT replace(c.commit_id, '.user@', '@') COLLATE \"C\" FROM above
         JOIN storage.tracker_objects USING (int_id)
         JOIN pfs.commits c ON c.int_id::text = split_part(str_id, '/', 2)
         WHERE str_id LIKE 'commit/%' ORDER BY 1"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_in_the_database_is_told_apart_from_damage() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "verify_broken").await else { return };
    let verify = |bundle: &str| desk.run(["verify", bundle, "--identity", "key.txt", "--level", "closed"]);
    let referenced = "SELECT substr(o.str_id, 7) FROM storage.tracker_objects o JOIN storage.tracker_refs r \
        ON r.to_id = o.int_id JOIN storage.tracker_objects f ON f.int_id = r.from_id \
        WHERE o.str_id LIKE 'chunk/%' AND f.str_id LIKE 'fileset/%' ORDER BY 1 LIMIT 1";
    let psql = |sql: &str| cluster.server.psql(&cluster.database, sql).unwrap();
    let chunk = psql(referenced).trim().to_owned();
    psql(&format!("UPDATE storage.chunk_objects SET tombstone = true WHERE encode(chunk_id, 'hex') = '{chunk}'"));
    desk.backup(&cluster.source(), "chunk.pacharc", &[]).code(0);
    verify("chunk.pacharc")
        .code(4)
        .says("incomplete")
        .says("is closed")
        .says(&format!("chunk {chunk}: it is referred to"));
    psql(&format!("UPDATE storage.chunk_objects SET tombstone = false WHERE encode(chunk_id, 'hex') = '{chunk}'"));

    let sizes = |more: &str| {
        psql(&format!("UPDATE storage.chunk_objects SET size = size {more} WHERE encode(chunk_id, 'hex') = '{chunk}'"))
    };
    sizes("+ 1");
    desk.backup(&cluster.source(), "size.pacharc", &[]).code(0);
    verify("size.pacharc").code(4).says("is closed").says("its row says");
    sizes("- 1");

    psql("DELETE FROM migrations WHERE id = 5");
    desk.backup(&cluster.source(), "gap.pacharc", &[]).code(0);
    verify("gap.pacharc").code(4).says("migration 5: the table of migrations lacks it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_live_set_nothing_is_called_closed() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "verify_no_bucket").await else { return };
    desk.backup(&cluster.databases(), "databases.pacharc", &[]).code(0);
    let run = desk.run(["verify", "databases.pacharc", "--identity", "key.txt", "--level", "closed"]).code(0);
    assert!(!run.says("sound").says("no bucket").stderr.contains("every live object"));
    desk.run(["verify", "databases.pacharc", "--level", "closed"]).code(6);
}
