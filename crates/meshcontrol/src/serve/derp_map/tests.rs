use std::fs;
use std::path::Path;

use mesh_wire::DerpRegionId;
use tempfile::TempDir;

use super::*;

/// A server's sources with one file, and what its clients are told.
struct Followed {
    directory: TempDir,
    follower: Follower,
    told: watch::Receiver<Arc<MapContext>>,
}

impl Followed {
    async fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("derp.yaml");
        fs::write(&path, text).unwrap();
        let files = vec![MapFile::read(path).await.unwrap()];
        let urls = MapUrls::new(&config().derp);
        let mut sources = Sources { urls, files, embedded: None, left_out: Problems::default() };
        let derp_map = Arc::new(sources.merge().unwrap());
        let (contexts, told) = watch::channel(Arc::new(settings::map_context(&config(), derp_map)));
        let age = MapAge::new(Some(sources.read_at()));
        let follower = Follower { sources, contexts, age, problem: None, is_followed: true };
        Self { directory, follower, told }
    }

    /// Writes the file, and lets it be looked at as often as it takes. Says whether clients are told.
    async fn write(&mut self, text: &str) -> bool {
        let path = self.directory.path().join("derp.yaml");
        match text {
            "" => fs::remove_file(path).unwrap(),
            text => fs::write(path, text).unwrap(),
        }
        for _ in 0..2 {
            self.follower.sources.files[0].look().await;
            self.follower.publish();
            self.follower.renew_age();
        }
        let is_told = self.told.has_changed().unwrap();
        self.told.mark_unchanged();
        is_told
    }

    fn regions(&self) -> Vec<u32> {
        let context = self.told.borrow();
        context.derp_map.regions.iter().flatten().map(|(DerpRegionId(id), _)| *id).collect()
    }
}

fn config() -> Config {
    Config::defaults(Path::new("/nowhere"))
}

fn region(id: u32) -> String {
    format!("regions: {{{id}: {{nodes: [{{name: a, hostname: derp.example.com}}]}}}}\n")
}

#[tokio::test]
async fn a_file_that_changes_is_told_to_clients_and_nothing_else_is() {
    let mut followed = Followed::new(&region(900)).await;
    assert!(!followed.write(&region(900)).await);
    assert!(!followed.write(&format!("# a word\n{}", region(900))).await);
    assert!(followed.write(&region(901)).await);
    assert_eq!(followed.regions(), [901]);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_left_alone() {
    let mut followed = Followed::new(&region(900)).await;
    fs::write(followed.directory.path().join("derp.yaml"), region(901)).unwrap();
    followed.follower.sources.files[0].look().await;
    followed.follower.publish();
    assert_eq!(followed.regions(), [900]);
}

#[tokio::test]
async fn a_file_that_breaks_or_vanishes_leaves_what_it_said() {
    let mut followed = Followed::new(&region(900)).await;
    for broken in ["regions: {0: {}}", "regions: {900: null}", "{", ""] {
        assert!(!followed.write(broken).await, "{broken}");
        assert_eq!(followed.regions(), [900], "{broken}");
    }
    assert!(!followed.write(&region(900)).await, "it is back as it was");
    assert!(followed.write(&region(902)).await);
}

#[tokio::test]
async fn a_map_that_files_do_not_make_together_grows_old() {
    let mut followed = Followed::new(&region(900)).await;
    followed.follower.sources.embedded = Some(DerpSource::parse(region(999).as_bytes()).unwrap());
    let read_at = followed.follower.age.read_at();
    followed.write(&region(901)).await;
    assert_eq!(followed.follower.age.read_at(), read_at, "both name a node the same");
    followed.write(&region(901).replace("name: a", "name: b")).await;
    assert!(followed.follower.age.read_at() > read_at);
}

#[tokio::test]
async fn a_map_that_is_not_followed_has_no_age() {
    let mut config = config();
    config.derp.auto_update_enabled = false;
    let region = DerpRegion { region_id: DerpRegionId(999), ..DerpRegion::default() };
    let stop = CancellationToken::new();
    let (_told, age) = spawn_contexts(&config, Some(region), stop).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(age.read_at(), None);
}

#[tokio::test]
async fn a_broken_file_makes_the_map_old() {
    let mut followed = Followed::new(&region(900)).await;
    let read_at = followed.follower.sources.read_at();
    followed.write(&region(901)).await;
    let newer = followed.follower.sources.read_at();
    assert!(newer > read_at);
    followed.write("{").await;
    assert_eq!(followed.follower.sources.read_at(), newer);
}

#[tokio::test]
async fn scores_that_are_gone_are_taken_back() {
    let scored = format!("{}homeparams: {{regionscore: {{900: 0.5}}}}", region(900));
    let mut followed = Followed::new(&scored).await;
    assert!(followed.write(&region(900)).await);
    let context = followed.told.borrow().clone();
    let params = context.derp_map.home_params.clone().expect("scores are spoken of");
    assert_eq!(params.region_score, Some([].into()));
    let json = serde_json::to_value(&*context.derp_map).unwrap();
    assert_eq!(json["HomeParams"], serde_json::json!({ "RegionScore": {} }));
}

#[tokio::test]
async fn the_first_read_tells_file_region_node_and_fix() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("derp.yaml");
    fs::write(&path, "regions: {900: {nodes: [{name: 900a, hostname: h, derpport: -4}]}}").unwrap();
    let error = MapFile::read(path.clone()).await.unwrap_err();
    let expected = format!(
        "the DERP map {} cannot be used: region 900, node 900a: derpport -4 is no port: write one up to 65535, \
         or 0 for 443",
        path.display()
    );
    assert_eq!(format!("{error:#}"), expected);
}
