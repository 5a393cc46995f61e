//! Sentinels and clusters for tests, which start and wait until all of it is up.

use super::server::{Port, RedisServer, Role, until};

/// What a user of ours needs, in the words of `docs/operations.md`.
pub(crate) const RIGHTS: &str = "-@all +ping +select +time +get +set +del +exists +hget +hmget +hset +hexists +pexpire +pttl +scan +zadd +zrange +zrem +zremrangebyscore +zscore +evalsha +script|load +client|tracking";
/// And with Sentinel or a cluster.
pub(crate) const MORE_RIGHTS: &str = "+role +asking +cluster|slots +cluster|info";
/// What a user of ours needs on the Sentinels.
pub(crate) const SENTINEL_RIGHTS: &str =
    "resetchannels &+switch-master -@all +sentinel|master +subscribe";

/// The user in the URLs; everybody else may do everything.
fn user(rights: &str) -> String {
    format!("user cloakroom on >word {rights}")
}

fn servers_user() -> String {
    user(&format!("~* {RIGHTS} {MORE_RIGHTS}"))
}

fn scheme(port: &Port) -> (&'static str, String) {
    match port {
        Port::Tls(pki) => ("rediss", pki.query()),
        Port::None | Port::Plain => ("redis", String::new()),
    }
}

/// One server with a user, and the URL that leads to it.
pub(crate) fn single(port: &Port) -> (RedisServer, String) {
    let server = RedisServer::listen(Role::Server, port, &[servers_user()]);
    let (scheme, query) = scheme(port);
    let url = format!(
        "{scheme}://cloakroom:word@127.0.0.1:{}/1?{query}",
        server.port
    );
    (server, url)
}

/// A master, a replica and three Sentinels.
pub(crate) struct Watched {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    pub(crate) sentinels: Vec<RedisServer>,
    pub(crate) url: String,
}

impl Watched {
    pub(crate) fn start(port: &Port) -> Self {
        let start = |lines: &[String]| RedisServer::listen(Role::Server, port, lines);
        let master = start(&[servers_user()]);
        let replica = start(&[
            servers_user(),
            format!("replicaof 127.0.0.1 {}", master.port),
        ]);
        until("the replica follows", || {
            let info = replica.obey("INFO replication");
            info.contains("master_link_status:up")
        });
        let sentinels: Vec<_> = (0..3)
            .map(|_| {
                let lines = [
                    format!("user watcher on >watch {SENTINEL_RIGHTS}"),
                    format!("sentinel monitor mymaster 127.0.0.1 {} 2", master.port),
                    "sentinel down-after-milliseconds mymaster 700".to_owned(),
                    "sentinel failover-timeout mymaster 3000".to_owned(),
                ];
                RedisServer::listen(Role::Sentinel, port, &lines)
            })
            .collect();
        let (scheme, query) = scheme(port);
        let hosts: Vec<_> = sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        let url = format!(
            "{scheme}+sentinel://cloakroom:word@{}/1?master=mymaster&sentinel_user=watcher&sentinel_password=watch&{query}",
            hosts.join(",")
        );
        let watched = Self {
            master,
            replica,
            sentinels,
            url,
        };
        watched.wait();
        watched
    }

    fn wait(&self) {
        for sentinel in &self.sentinels {
            until("the Sentinels know each other and the replica", || {
                let told = sentinel.obey("SENTINEL MASTER mymaster");
                let lines: Vec<&str> = told.lines().collect();
                let is = |name: &str, value: &str| {
                    let at = lines.iter().position(|line| *line == name);
                    at.is_some_and(|at| lines.get(at + 2) == Some(&value))
                };
                is("flags", "master") && is("num-slaves", "1") && is("num-other-sentinels", "2")
            });
        }
    }

    /// Whether all Sentinels name the replica as the master.
    pub(crate) fn has_failed_over(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let told = sentinel.obey("SENTINEL MASTER mymaster");
            told.lines()
                .any(|line| line == self.replica.port.to_string())
        })
    }
}

/// Masters with a third of the slots each, and replicas of the first of them.
pub(crate) struct Nodes {
    pub(crate) masters: Vec<RedisServer>,
    pub(crate) replicas: Vec<RedisServer>,
    pub(crate) url: String,
}

impl Nodes {
    pub(crate) fn start(port: &Port, replicas: usize) -> Self {
        let start = || RedisServer::listen(Role::ClusterNode, port, &[servers_user()]);
        let masters: Vec<_> = (0..3).map(|_| start()).collect();
        let replicas: Vec<_> = (0..replicas).map(|_| start()).collect();
        let all: Vec<_> = masters.iter().chain(&replicas).collect();
        for (n, node) in all.iter().enumerate() {
            node.obey(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
        }
        for (master, slots) in masters.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            master.obey(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        }
        for (n, node) in all.iter().enumerate() {
            for other in all.iter().skip(n + 1) {
                let (port, bus) = (other.port, other.bus);
                node.obey(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"));
            }
        }
        let count = format!("cluster_known_nodes:{}", all.len());
        for node in &all {
            until("the nodes of the cluster know each other", || {
                let info = node.obey("CLUSTER INFO");
                info.contains("cluster_state:ok") && info.contains(&count)
            });
        }
        let first = id(&masters[0]);
        for replica in &replicas {
            // Not before it has heard who that is.
            until("a replica knows its master", || {
                let answer = replica.say(&format!("CLUSTER REPLICATE {first}"));
                answer.unwrap().starts_with("+OK")
            });
            until("a replica follows its master", || {
                let info = replica.obey("INFO replication");
                info.contains("master_link_status:up")
            });
        }
        for node in &all {
            until("all nodes know of the replicas, and of one epoch", || {
                let nodes = node.obey("CLUSTER NODES");
                let slaves = nodes.matches("slave").count();
                let epoch = format!("cluster_current_epoch:{}", all.len());
                slaves == replicas.len() && node.obey("CLUSTER INFO").contains(&epoch)
            });
        }
        let (scheme, query) = scheme(port);
        let url = format!(
            "{scheme}+cluster://cloakroom:word@127.0.0.1:{},127.0.0.1:{}?{query}",
            masters[0].port, masters[1].port
        );
        Self {
            masters,
            replicas,
            url,
        }
    }
}

/// What a node is called in the cluster.
pub(crate) fn id(node: &RedisServer) -> String {
    let answer = node.obey("CLUSTER MYID");
    answer.lines().nth(1).unwrap().to_owned()
}
