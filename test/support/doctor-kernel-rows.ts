/** Facts about the engine kernel that differ from those of a sound host in one thing, as doctor-rows.ts has the others. */
import { known, unknown } from '../../src/lib/fact.js';
import { sampleDatapath, watchedPeer, wellFacts } from './doctor-facts.js';
import { withDatapath, withStatus, type Row } from './doctor-rows.js';

const { underlay } = wellFacts;
const kernelOn = { wanted: 'auto', state: 'on', reason: null, peers: 0 } as const;

export const kernelRows: readonly Row[] = [
  [
    'note',
    'kernel-unavailable',
    /BPF_PROG_LOAD: EPERM/,
    withDatapath({ kernel: { wanted: 'auto', state: 'unavailable', reason: 'BPF_PROG_LOAD: EPERM', peers: 0 } }),
  ],
  [
    'warning',
    'kernel-unavailable',
    /BPF_PROG_LOAD: EPERM.*--engine=user/s,
    withDatapath({ kernel: { wanted: 'kernel', state: 'unavailable', reason: 'BPF_PROG_LOAD: EPERM', peers: 0 } }),
  ],
  [
    'warning',
    'kernel-port-dropped',
    /iptables filter INPUT: its policy drops packets of the engine kernel.*come in.*not tracked.*--dport 4790 -j ACCEPT/s,
    {
      ...withDatapath({ kernel: kernelOn }),
      underlay: {
        ...underlay,
        kernelDrops: known([
          {
            what: 'in',
            rule: 'iptables filter INPUT: its policy drops',
            repair: 'iptables -t filter -I INPUT -p udp --dport 4790 -j ACCEPT',
            peers: [],
          },
        ]),
      },
    },
  ],
  [
    'warning',
    'kernel-path-silent',
    /host-b 192\.0\.2\.2 .*answers by UDP 8285 and not by UDP 4790.*firewall.*--dport 4790 -j ACCEPT/s,
    withStatus({
      datapath: { ...sampleDatapath, kernel: kernelOn },
      peers: [watchedPeer({ engineReason: 'no answer on UDP 4790 for 12 s' })],
    }),
  ],
  [
    'unchecked',
    'kernel-port',
    /iptables-save: EPERM/,
    {
      ...withDatapath({ kernel: kernelOn }),
      underlay: { ...underlay, kernelDrops: unknown('iptables-save: EPERM') },
    },
  ],
];
