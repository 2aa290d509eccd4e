/**
 * Every flag of `tartand` stands in one literal table: flannel's (all of them, so that a unit file of flanneld works
 * unchanged) and ours. The parser, the environment, the refusals, `--help` and the tests read only this table.
 */

/** How the text of a value is read. A `secret` is text that no message may show. */
export type FlagKind = 'text' | 'path' | 'list' | 'boolean' | 'integer' | 'secret';

export type FlagDisposition =
  | { readonly kind: 'works' }
  /** The flag is accepted and logged: leaving it out changes nothing for this program. */
  | { readonly kind: 'harmless'; readonly why: string }
  /** The flag is refused when it asks for something; `missing` completes "is not supported: ...". */
  | { readonly kind: 'later'; readonly missing: string };

export interface Flag {
  readonly name: string;
  readonly kind: FlagKind;
  /** The name of the value in `--help`. */
  readonly value: string;
  readonly fallback: string;
  /** Inclusive bounds of an integer. */
  readonly min?: number;
  readonly max?: number;
  readonly help: string;
  readonly disposition: FlagDisposition;
}

const works: FlagDisposition = { kind: 'works' };
const harmless = (why: string): FlagDisposition => ({ kind: 'harmless', why });
const later = (missing: string): FlagDisposition => ({ kind: 'later', missing });
const kubernetes = harmless('subnets come from etcd, no Kubernetes API is used');
const klog = harmless('set the detail of the log with --log-level');

// prettier-ignore
const table = [
  // etcd
  { name: 'etcd-endpoints', kind: 'text', value: 'URLS', fallback: 'http://127.0.0.1:4001,http://127.0.0.1:2379', help: 'client URLs of etcd, separated by commas', disposition: works },
  { name: 'etcd-prefix', kind: 'text', value: 'PREFIX', fallback: '/coreos.com/network', help: 'etcd key prefix', disposition: works },
  { name: 'etcd-keyfile', kind: 'path', value: 'FILE', fallback: '', help: 'client key for etcd (PEM)', disposition: works },
  { name: 'etcd-certfile', kind: 'path', value: 'FILE', fallback: '', help: 'client certificate for etcd (PEM)', disposition: works },
  { name: 'etcd-cafile', kind: 'path', value: 'FILE', fallback: '', help: 'certificate authority that etcd is verified with (PEM); default: the system\'s', disposition: works },
  { name: 'etcd-username', kind: 'text', value: 'NAME', fallback: '', help: 'etcd user', disposition: works },
  { name: 'etcd-password', kind: 'secret', value: 'TEXT', fallback: '', help: 'etcd password; every user of the host can read a command line, so prefer --etcd-password-file', disposition: works },
  { name: 'etcd-password-file', kind: 'path', value: 'FILE', fallback: '', help: 'file that holds the etcd password', disposition: works },
  { name: 'insecure-etcd', kind: 'boolean', value: '', fallback: 'false', help: 'allow a password over http to an etcd on another host', disposition: works },
  // underlay
  { name: 'iface', kind: 'list', value: 'NAME|IP', fallback: '', help: 'interface that carries the tunnel; repeatable, the first that exists is taken; default: that of the default route', disposition: works },
  { name: 'iface-regex', kind: 'list', value: 'REGEX', fallback: '', help: 'the same by a regular expression on address or name; repeatable, tried after --iface', disposition: works },
  { name: 'iface-can-reach', kind: 'text', value: 'IP', fallback: '', help: 'the same by the route to IP, tried last', disposition: works },
  { name: 'public-ip', kind: 'text', value: 'IP', fallback: '', help: 'IPv4 address that the peers send to; default: the interface\'s', disposition: works },
  { name: 'public-ipv6', kind: 'text', value: 'IP', fallback: '', help: 'IPv6 address that the peers send to', disposition: later('this version carries IPv4 over IPv4 only') },
  // files and rules of the host
  { name: 'subnet-file', kind: 'path', value: 'FILE', fallback: '/run/flannel/subnet.env', help: 'where FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU and FLANNEL_IPMASQ are written', disposition: works },
  { name: 'docker-env-file', kind: 'path', value: 'FILE', fallback: '', help: 'where DOCKER_OPT_* and DOCKER_NETWORK_OPTIONS are written; default: docker.env in the run directory', disposition: works },
  { name: 'docker-config', kind: 'text', value: 'PLACE', fallback: 'env', help: 'where Docker finds its settings: env (--docker-env-file), or daemon-json: merged into --docker-daemon-json', disposition: works },
  { name: 'docker-daemon-json', kind: 'path', value: 'FILE', fallback: '/etc/docker/daemon.json', help: 'configuration file of dockerd; changed with --docker-config=daemon-json only', disposition: works },
  { name: 'docker-subnet-len', kind: 'integer', value: 'LENGTH', fallback: '0', min: 0, max: 30, help: 'docker0 gets only this much of the leased subnet, its first part; the rest is for networks of your own; 0 for the whole, or for half of it with --docker-pools', disposition: works },
  { name: 'docker-pools', kind: 'boolean', value: '', fallback: 'false', help: 'networks that Docker makes by itself (docker compose up, docker network create) are parts of the rest of the leased subnet; Docker 23 or later', disposition: works },
  { name: 'docker-firewall', kind: 'text', value: 'KIND', fallback: 'auto', help: 'what Docker filters with: iptables, nftables (Docker 29 on), or auto: by daemon.json and dockerd\'s flags', disposition: works },
  { name: 'run-dir', kind: 'path', value: 'DIR', fallback: '/run/tartan', help: 'socket, lock and shared table', disposition: works },
  { name: 'state-dir', kind: 'path', value: 'DIR', fallback: '/var/lib/tartan', help: 'node id and what survives a reboot', disposition: works },
  { name: 'node-id', kind: 'text', value: 'ID', fallback: '', help: 'identity of this host; default: a UUID kept in the state directory', disposition: works },
  { name: 'ip-masq', kind: 'boolean', value: '', fallback: 'false', help: 'masquerade what leaves the overlay', disposition: works },
  { name: 'ip-masq-fully-random-disable', kind: 'boolean', value: '', fallback: 'false', help: 'masquerade without fully random ports', disposition: works },
  { name: 'iptables-forward-rules', kind: 'boolean', value: '', fallback: 'true', help: 'accept forwarded packets of the overlay', disposition: works },
  { name: 'iptables-resync', kind: 'integer', value: 'SECONDS', fallback: '5', min: 1, max: 86_400, help: 'how often the host is compared with what it should be, six times as rarely where the kernel tells of every change', disposition: works },
  { name: 'ip-blackhole-route', kind: 'boolean', value: '', fallback: 'false', help: 'blackhole route for the own subnet', disposition: later('no blackhole route is kept for the own subnet') },
  // lease
  { name: 'lease-ttl', kind: 'integer', value: 'SECONDS', fallback: '86400', min: 2, max: 315_360_000, help: 'how long the subnet stays ours without a sign of life', disposition: works },
  { name: 'subnet-lease-renew-margin', kind: 'integer', value: 'MINUTES', fallback: '60', min: 1, max: 1439, help: 'flannel\'s renewal margin', disposition: harmless('the lease is kept alive all the time, not renewed near its end') },
  { name: 'reuse-quarantined', kind: 'boolean', value: '', fallback: 'false', help: 'when no other is free, take a subnet that its last owner may still use', disposition: works },
  { name: 'on-lost', kind: 'text', value: 'REACTION', fallback: 'exit', help: 'when another node owns the subnet, its traffic stopped: exit (75), or degraded: stay and wait for an operator', disposition: works },
  { name: 'peer-hold-down', kind: 'integer', value: 'SECONDS', fallback: '60', min: 0, max: 86_400, help: 'how long a peer that vanished from etcd without a goodbye stays routed; 0 obeys at once, also when most vanish together', disposition: works },
  // tunnel
  { name: 'engine', kind: 'text', value: 'ENGINE', fallback: 'auto', help: 'what carries packets between hosts of tartan: user (the data process), kernel (VXLAN-GPE on UDP 4790, to hosts that announce it), or auto: kernel where Linux is 6.1 or later; Engine "user" of the network document overrides it', disposition: works },
  { name: 'no-source-check', kind: 'boolean', value: '', fallback: 'false', help: 'accept packets whose inner source does not belong to the sender', disposition: works },
  { name: 'no-destination-check', kind: 'boolean', value: '', fallback: 'false', help: 'accept packets that are not for the own subnet', disposition: works },
  // health and log
  { name: 'healthz-ip', kind: 'text', value: 'IP', fallback: '127.0.0.1', help: 'address of the health listener', disposition: works },
  { name: 'healthz-port', kind: 'integer', value: 'PORT', fallback: '0', min: -1, max: 65_535, help: 'port of /healthz and /readyz; 0 for none', disposition: works },
  { name: 'metrics', kind: 'boolean', value: '', fallback: 'false', help: 'Prometheus metrics at /metrics of the health listener', disposition: works },
  { name: 'metrics-peers', kind: 'integer', value: 'NUMBER', fallback: '50', min: 0, max: 1000, help: 'how many peers have metrics of their own, those with most traffic; the others are in sums', disposition: works },
  { name: 'status-listen', kind: 'text', value: 'ADDRESS:PORT', fallback: '', help: 'offer the status of this host to `tartan web` elsewhere, read-only; default: on the local socket only', disposition: works },
  { name: 'status-token-file', kind: 'path', value: 'FILE', fallback: '', help: 'one word of at least 16 characters that --status-listen wants from who asks; needed where other hosts reach it', disposition: works },
  { name: 'status-tls-cert', kind: 'path', value: 'FILE', fallback: '', help: 'certificate of --status-listen with its chain (PEM); needed where other hosts reach it', disposition: works },
  { name: 'status-tls-key', kind: 'path', value: 'FILE', fallback: '', help: 'key of --status-tls-cert (PEM)', disposition: works },
  { name: 'log-level', kind: 'text', value: 'LEVEL', fallback: 'info', help: 'debug, info, warn or error', disposition: works },
  { name: 'log-format', kind: 'text', value: 'FORM', fallback: 'auto', help: 'json, text, journal, or auto: journal under systemd-journald, text on a terminal, else json', disposition: works },
  { name: 'v', kind: 'integer', value: 'NUMBER', fallback: '0', min: -1000, max: 1000, help: '1 or more is --log-level debug', disposition: works },
  { name: 'vmodule', kind: 'text', value: 'LIST', fallback: '', help: 'flannel\'s log detail per file', disposition: klog },
  { name: 'log_backtrace_at', kind: 'text', value: 'PLACE', fallback: '', help: 'flannel\'s stack trace at a log line', disposition: klog },
  // Kubernetes
  { name: 'kube-subnet-mgr', kind: 'boolean', value: '', fallback: 'false', help: 'take subnets from Kubernetes', disposition: later('subnets come from etcd only, run without it and give --etcd-endpoints') },
  { name: 'kube-api-url', kind: 'text', value: 'URL', fallback: '', help: 'Kubernetes API', disposition: kubernetes },
  { name: 'kube-annotation-prefix', kind: 'text', value: 'PREFIX', fallback: 'flannel.alpha.coreos.com', help: 'prefix of node annotations', disposition: kubernetes },
  { name: 'kubeconfig-file', kind: 'text', value: 'FILE', fallback: '', help: 'kubeconfig', disposition: kubernetes },
  { name: 'net-config-path', kind: 'text', value: 'FILE', fallback: '/etc/kube-flannel/net-conf.json', help: 'network document of the Kubernetes mode', disposition: harmless('the network document is read from etcd') },
  { name: 'set-node-network-unavailable', kind: 'boolean', value: '', fallback: 'true', help: 'set the Kubernetes node condition', disposition: kubernetes },
  // this program
  { name: 'version', kind: 'boolean', value: '', fallback: 'false', help: 'print the version and exit', disposition: works },
] as const satisfies readonly Flag[];

export type FlagName = (typeof table)[number]['name'];
export const flags: readonly (Flag & { readonly name: FlagName })[] = table;

const byName = new Map<string, Flag & { readonly name: FlagName }>(flags.map(flag => [flag.name, flag]));

export function findFlag(name: string): (Flag & { readonly name: FlagName }) | undefined {
  return byName.get(name);
}

/** Returns the environment variables of a flag, the one that wins first. `version` has none: images often set it. */
export function environmentNames(flag: Flag): readonly string[] {
  if (flag.name === 'version') return [];
  const suffix = flag.name.toUpperCase().replaceAll('-', '_');
  return [`TARTAN_${suffix}`, `FLANNELD_${suffix}`];
}
