/** Documents with a fault in them, and what leads to it: from the tool and from the daemon's log alike, one parser. */
import { describe, expect, it } from 'vitest';
import { messageOf } from '../../src/lib/errors.js';
import { parseLeaseValue } from '../../src/model/lease.js';
import { runTool } from '../../src/tool/tool.js';
import { noPorts, unexpected } from '../support/samples.js';
import { parseNetworkConfig } from '../../src/model/network.js';

function fault(text: string): string {
  try {
    parseNetworkConfig(text);
    return 'accepted';
  } catch (error) {
    return messageOf(error);
  }
}

const notes = (text: string): readonly string[] => parseNetworkConfig(text).warnings;
const network = '"Network":"10.5.0.0/16"';

describe('fault B11: where a document stops being JSON', () => {
  it.each([
    ['{"Network": "10.5.0.0/16", \\\n "SubnetLen": 24}', 'line 1, column 28: a backslash'],
    ['{\n  "Network": "10.5.0.0/16",\n}', "line 2, column 27: a comma too many before '}'"],
    ['{"Network":"10.5.0.0/16",,"SubnetLen":24}', "line 1, column 25: a comma too many before ','"],
    ['\ufeff{"Network":"10.5.0.0/16"}', 'begins with a byte order mark'],
    ['\ufffd\ufffd{\0"\0', 'not in UTF-8'],
    ['{\0"\0N\0', 'not in UTF-8'],
    ['', 'it is empty'],
    [' \n', 'it is empty'],
    ['{"Network":"10.5.0.0/16"', 'line 1, column 25: the text ends'],
    ['{"Network":"10.5.0.0/16}', 'line 1'],
    ["{'Network':'10.5.0.0/16'}", 'line 1, column 2'],
    [
      '{Network:"10.5.0.0/16"}',
      "line 1, column 2: 'Network' stands there, expected a value, or a name in double quotes",
    ],
    ['{"Network" "10.5.0.0/16"}', "expected ':' and a value"],
    ['{"Network":"10.5.0.0/16" "SubnetLen":24}', "line 1, column 26: '\"' stands there, expected ',' or the end"],
    ['{\n"Network":"10.5.0.0/16"}\n}', "line 3, column 1: '}' stands there, expected nothing more"],
    ['{"Network":}', "'}' stands there, expected a value"],
    ['{"SubnetLen":True}', "'True' stands there"],
    ['{"Network":"10.5.0.0\\x2f16"}', 'after a backslash'],
    ['{"Network":"10.5.0.0/16"} // ours', 'no comment'],
    ['10.5.0.0/16', 'line 1'],
  ])('fault B11: %j', (text, place) => {
    expect(fault(text)).toMatch(/^the network document is not JSON: /);
    expect(fault(text)).toContain(place);
  });

  it.each(['set', 'validate'])('fault B11: `tartan config %s` says the same', async command => {
    let said = '';
    const io = {
      env: {},
      isTty: false,
      ports: noPorts,
      stdout: unexpected,
      stderr: (text: string) => void (said += text),
      stdin: async () => '\ufeff{"Network":"10.5.0.0/16"}\n',
    };
    expect(await runTool(['/usr/bin/node', '/usr/bin/tartan', 'config', command, '-'], io)).toBe(2);
    expect(said).toContain('begins with a byte order mark');
  });

  it('fault B11: values of leases are read by the same words', () => {
    expect(() => parseLeaseValue('{"PublicIP":"192.0.2.1",}')).toThrow(/line 1, column 24: a comma too many/);
  });

  it.each([
    [`{${network},"SubnetLength":26}`, 'SubnetLength has no effect, did you mean SubnetLen?'],
    [`{${network},"Subnet_Len":26}`, 'Subnet_Len has no effect, did you mean SubnetLen?'],
    [`{${network},"Backends":{"Type":"udp"}}`, 'Backends has no effect, did you mean Backend?'],
    [`{${network},"EnableIpv8":true}`, 'EnableIpv8 has no effect, did you mean EnableIPv4?'],
    [`{${network},"Port":8286}`, 'Port has no effect where it stands: it is a member of Backend'],
    [`{${network},"MTU":1400}`, 'MTU has no effect where it stands: it is a member of Backend'],
    [`{${network},"Backend":{"Type":"udp","MTU":1400}}`, 'udp has no member MTU'],
    [`{${network},"Backend":{"Type":"UDP","mtu":1400}}`, 'udp has no member MTU'],
    [`{${network},"Backend":{"Type":"udp","PSK":"x"}}`, 'Backend.PSK has no effect: udp has no such member'],
    [`{${network},"Engin":"user"}`, 'Engin has no effect, did you mean Engine?'],
    [`{${network},"Backend":{"Type":"udp","Prot":8286}}`, 'Backend.Prot has no effect, did you mean Port?'],
  ])('fault B11: a note on %s', (text, note) => {
    expect(notes(text)).toEqual([expect.stringContaining(note)]);
  });

  it('fault B11: members of a later version, and of other backends, are no errors of the writer', () => {
    expect(notes(`{${network},"Comment":"x","constructor":1,"Zones":[],"subnetlen":24}`)).toEqual([]);
    expect(notes(`{${network},"Backend":{"Type":"vxlan","VNI":7,"MTU":1400,"Anything":1}}`)).toEqual([]);
    expect(notes(`{${network},"Backend":{"Type":"udp","Later":{"a":1}}}`)).toEqual([]);
  });
});

describe('fault F9: a document that is valid here and refused by every flannel host', () => {
  it.each([
    ['{"Network":"10.5.0.0\\/16"}', 'Network is written as "10.5.0.0\\/16"'],
    ['{"Network":"10\\u002e5.0.0/16"}', 'Network'],
    [`{${network},"SubnetMin":"10.5.1\\u002e0"}`, 'SubnetMin'],
    [`{"Network":"nonsense",${network}}`, 'Network is written as "nonsense"'],
    [`{${network},"IPv6Network":"fd00::"}`, 'IPv6Network'],
    [`{${network},"IPv6Network":"fd00::/129"}`, 'IPv6Network'],
    [`{${network},"IPv6Network":"10.5.0.0/16"}`, 'IPv6Network'],
    [`{${network},"IPv6Network":null}`, 'IPv6Network is written as null'],
    [`{${network},"IPv6SubnetMin":"x"}`, 'IPv6SubnetMin'],
    [`{"EnableIPv6":"no","EnableIPv6":false,${network}}`, 'EnableIPv6 is written as "no"'],
    [`{"SubnetLen":"24","subnetlen":24,${network}}`, 'SubnetLen is written as "24"'],
    [`{${network},"EnableIPv6":false,"IPv6SubnetMax":7}`, 'IPv6SubnetMax is written as 7'],
    [`{${network},"IPv6SubnetLen":"64"}`, 'IPv6SubnetLen'],
    [`{${network},"ipv6subnetlen":64.0}`, 'ipv6subnetlen'],
  ])('fault F9: %s', (text, part) => {
    expect(notes(text)).toEqual([expect.stringMatching(/^flannel hosts refuse this document: /)]);
    expect(notes(text)[0]).toContain(part);
  });

  it('fault F9: nothing is said of a document that they take', () => {
    const ipv6 = '"IPv6Network":"fd00::/56","IPv6SubnetLen":64,"IPv6SubnetMin":null,"IPv6SubnetMax":"fd00:0:0:ff::"';
    expect(notes(`{${network},"EnableIPv6":false,${ipv6},"SubnetMin":"10.5.1.0","SubnetMax":"10.5.9.0"}`)).toEqual([]);
  });
});
