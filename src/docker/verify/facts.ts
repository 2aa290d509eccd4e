/** The facts that `tartan docker verify` judges. Gathering is apart from judging, so that judging needs no host. */
import type { Ipv4, Prefix } from '../../model/ip.js';
import type { EngineReading } from '../engine.js';
import type { PlacedFlag } from '../settings/dockerd-places.js';
import type { Fact } from '../../lib/fact.js';

export interface DockerFacts {
  readonly engine: EngineReading;
  /** The path of a dockerd program; undefined when there is none. */
  readonly program: string | undefined;
  /** The command line of the dockerd in this network namespace, without its name; undefined: none runs. */
  readonly commandLine: Fact<readonly string[] | undefined>;
  /** The flags that we watch, where they stand on this host, without those of docker.env. */
  readonly placedFlags: readonly PlacedFlag[];
  readonly daemonJson: { readonly path: string; readonly text: Fact<string | undefined> };
  readonly envFile: Fact<string | undefined>;
  /** Docker's systemd unit; undefined where systemd does not run, or has no such unit. */
  readonly unit: Fact<DockerUnit | undefined>;
  /** Where the drop-in for that unit lies in this installation; undefined: it is missing. */
  readonly dropIn: string | undefined;
  /** The bridge of Docker's default network, docker0 unless Docker names another; undefined: there is no such link. */
  readonly docker0: Fact<LinkFacts | undefined>;
  readonly firewall: FirewallFacts;
  readonly kernel: KernelFacts;
}

export interface DockerUnit {
  /** The files as `systemctl show` prints them, separated by blanks. */
  readonly environmentFiles: string;
  readonly needsReload: boolean;
}

export interface LinkFacts {
  readonly name: string;
  readonly mtu: number;
  readonly addresses: readonly { readonly address: Ipv4; readonly prefix: Prefix }[];
  /** Other links with an address whose subnet overlaps one of these, as `cni0 (10.5.1.1/24)`; left out: none. */
  readonly rivals?: readonly string[];
}

export interface FirewallFacts {
  readonly iptables: boolean;
  readonly nft: boolean;
  readonly rules: Fact<RuleFacts>;
  /** Rules behind the other variant of iptables (legacy beside nf_tables or the reverse); undefined: none. */
  readonly otherVariant: Fact<OtherVariant | undefined>;
  /** Programs in use that may replace the whole rule set. */
  readonly rivals: readonly string[];
}

export interface RuleFacts {
  /** Which of our rules exist. */
  readonly ours: {
    readonly forward: boolean;
    readonly raw: boolean;
    readonly masquerade: boolean;
    /** The rule that keeps sources within the overlay from the masquerade of others. */
    readonly sources: boolean;
    /** The rule that sets the mark which Docker's nftables backend accepts. */
    readonly mark: boolean;
  };
  /** iptables drops forwarded packets that no rule accepts, as the placement of our rules judges it. */
  readonly forwardDrops: boolean;
  /** Sources that rules of others masquerade. */
  readonly masqueraded: readonly Prefix[];
}

export interface OtherVariant {
  readonly program: 'iptables-legacy' | 'iptables-nft';
  readonly rules: number;
  /** The policy of its FORWARD chain is DROP. */
  readonly policyDrops: boolean;
}

export interface KernelFacts {
  readonly ipForward: Fact<string>;
  readonly rpFilterAll: Fact<string>;
  readonly rpFilterUnderlay: Fact<string>;
  readonly underlay: string | undefined;
  readonly defaultRoutes: Fact<number>;
}
