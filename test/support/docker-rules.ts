/**
 * What Docker engines put into the packet filter, recorded from real ones (docker-rules/) or, for the nftables backend
 * of Docker 29, written down from its documentation, and loaded as a starting engine would.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** 20 stands for 26.1 too: their rules are the same. */
export type RecordedEngine = 20 | 28;

/** Without masquerade of its own an engine leaves out two rules. */
const masquerades = /^-A POSTROUTING -s \S+ ! -o docker0 -j MASQUERADE$|^-A DOCKER -i docker0 -j RETURN$/;

/**
 * For `iptables-restore --noflush`. An engine keeps a DOCKER-USER that it finds, puts its jumps at the top of FORWARD
 * and its masquerade at the top of POSTROUTING, and appends what it drops in raw.
 */
export function engineStart(engine: RecordedEngine, masquerade: boolean, hasDockerUser: boolean): string {
  const file = fileURLToPath(new URL(`docker-rules/engine-${engine}.txt`, import.meta.url));
  const text = readFileSync(file, 'utf8').replaceAll('{subnet}', '10.5.1.0/24').replaceAll('{container}', '10.5.1.2');
  const tables = text.split(/(?=^\*)/m).filter(table => table.startsWith('*'));
  return tables
    .map(table => {
      const lines = table.split('\n').filter(line => line !== '' && line !== 'COMMIT');
      const kept = lines
        .filter(line => masquerade || !masquerades.test(line))
        .filter(line => !hasDockerUser || !line.startsWith(':DOCKER-USER'));
      const isOnTop = (line: string): boolean => /^-A (FORWARD|POSTROUTING) /.test(line);
      const onTop = kept.filter(isOnTop).map(line => line.replace('-A', '-I'));
      return [...kept.filter(line => !isOnTop(line)), ...onTop.reverse(), 'COMMIT', ''].join('\n');
    })
    .join('');
}

/**
 * Docker 29 with --firewall-backend=nftables and --bridge-accept-fwmark: what goes to a container is dropped, but for
 * answers and packets with the mark. Its drop in raw, which has no exception for the mark, is left out: that is what
 * --allow-direct-routing does.
 */
export const engine29 = `table ip docker-bridges {
	chain filter-FORWARD {
		type filter hook forward priority filter; policy accept;
		oifname "docker0" jump filter-forward-in
		iifname "docker0" accept
	}
	chain filter-forward-in {
		ct state established,related counter accept
		meta mark & 0x01000000 == 0x01000000 counter accept
		iifname != "docker0" counter drop
	}
	chain nat-POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		iifname != "docker0" oifname "docker0" ip saddr 10.5.1.0/24 masquerade
		oifname != "docker0" ip saddr 10.5.1.0/24 counter masquerade
	}
}
`;
