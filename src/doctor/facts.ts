/** The facts that `tartan doctor` judges. The tool gathers them (tool/doctor-facts.ts), so that judging needs no host. */
import type { Status } from '../agent/status.js';
import type { DockerPlan } from '../docker/settings/docker-plan.js';
import type { DockerFacts } from '../docker/verify/facts.js';
import type { OuterDrop } from '../host/firewall/outer-drops.js';
import type { Fact } from '../lib/fact.js';
import type { Ipv4 } from '../model/ip.js';

export interface DoctorFacts {
  /** Unknown: the daemon cannot be asked, and why. */
  readonly status: Fact<Status>;
  /** The same a moment later, so that what grows is seen. */
  readonly later: Fact<Status>;
  readonly own: OwnFacts;
  readonly host: HostFacts;
  readonly underlay: UnderlayFindings;
  readonly docker: Fact<{ readonly plan: DockerPlan; readonly facts: DockerFacts }>;
}

/** Processes, directories and files of ours. */
export interface OwnFacts {
  /** The tartand of this run directory; undefined: none runs. */
  readonly daemon: Fact<ProcessFacts | undefined>;
  /** The data process; undefined: none runs. */
  readonly dataProcess: Fact<ProcessFacts | undefined>;
  readonly places: readonly PlaceFacts[];
  /** subnet.env; undefined: there is none. */
  readonly subnetFile: { readonly path: string; readonly text: Fact<string | undefined> };
  /** Files by which this host shows itself to etcd, or knows it by; empty: none is named. */
  readonly certificates: readonly CertificateFacts[];
  /** With what the last daemon ended; undefined: not known. */
  readonly lastFailure: string | undefined;
  /** Milliseconds of the wall clock, by which certificates are judged. */
  readonly wallMs: number;
}

export interface ProcessFacts {
  readonly pid: number;
  /** A letter of proc(5): T is stopped, D waits for the kernel. */
  readonly state: string;
  readonly openFiles: Fact<number>;
  readonly openFilesMax: Fact<number>;
  /** The part of its time in which a thread that could run waited for a processor, 0 to 1, over the gathering. */
  readonly starved: Fact<number>;
}

/** A directory that tartand writes to. */
export interface PlaceFacts {
  readonly path: string;
  /** undefined: it can be written; else the errno. */
  readonly refusal: string | undefined;
  readonly freeBytes: Fact<number>;
  readonly freeFiles: Fact<number>;
}

export interface CertificateFacts {
  readonly path: string;
  readonly validFromMs: Fact<number>;
  readonly validToMs: Fact<number>;
}

export interface HostFacts {
  readonly kernel: string;
  /** undefined: it can be opened; else the errno. */
  readonly tunDevice: Fact<string | undefined>;
  /** The settings that the tunnel's link needs. */
  readonly settings: Fact<readonly SettingFacts[]>;
  readonly reversePath: { readonly all: Fact<string>; readonly underlay: Fact<string> };
  readonly conntrack: Fact<{ readonly count: number; readonly max: number } | undefined>;
  /** Percent of the last ten seconds in which something waited for a processor (PSI); undefined: not told. */
  readonly pressure: Fact<number | undefined>;
  /** Programs that manage links and have taken ours. */
  readonly linkManagers: readonly LinkManager[];
}

export type LinkManager = 'systemd-networkd' | 'NetworkManager';

export interface SettingFacts {
  /** With dots for slashes: `net.ipv4.conf.tartan0.forwarding`. */
  readonly name: string;
  readonly wanted: string;
  readonly found: Fact<string>;
}

/** What the kernel says of the way to the peers. */
export interface UnderlayFindings {
  /** The link that carries the tunnel; undefined: there is no such link. */
  readonly link: Fact<UnderlayLink | undefined>;
  /** The tunnel's own link. */
  readonly tunnel: Fact<{ readonly mtu: number; readonly up: boolean } | undefined>;
  /** Other links with addresses that could carry it, as `eth1 198.51.100.1`. */
  readonly candidates: readonly string[];
  /** How packets to some peers, and to addresses of their subnets, leave this host. */
  readonly routes: Fact<readonly PeerRoute[]>;
  readonly drops: Fact<readonly OuterDrop[]>;
  /** The same for the engine kernel; none where it is not on. */
  readonly kernelDrops: Fact<readonly OuterDrop[]>;
}

export interface UnderlayLink {
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  /** It has the address that the tunnel leaves from. */
  readonly hasAddress: boolean;
  /** The address is of /32 or of loopback, so that packets leave by other links. */
  readonly isRouted: boolean;
}

export interface PeerRoute {
  readonly publicIp: Ipv4;
  readonly subnet: string;
  /** undefined: no route leads there. */
  readonly outer: { readonly interfaceName: string; readonly source: Ipv4 } | undefined;
  readonly inner: { readonly interfaceName: string; readonly source: Ipv4 } | undefined;
}
