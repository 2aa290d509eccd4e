/** Which user the data process becomes, on machines whose files say one thing or another. */
import { describe, expect, it } from 'vitest';
import { chooseAccount, type Account } from '../../src/datapath/tun/account.js';

const whole = '         0          0 4294967295\n';
const passwd = 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n';

/** @param processes texts of /proc/<pid>/status */
function choose(files: Readonly<Record<string, string>>, processes: readonly string[] = []): Promise<Account> {
  const all: Readonly<Record<string, string>> = {
    '/proc/self/uid_map': whole,
    '/proc/self/gid_map': whole,
    '/etc/passwd': passwd,
    '/etc/group': 'root:x:0:\nnogroup:x:65534:\n',
    ...files,
    ...Object.fromEntries(processes.map((text, pid) => [`/proc/${pid}/status`, text])),
  };
  return chooseAccount({ read: path => all[path] ?? '', pids: () => [...processes.keys()].map(String) });
}

const account = (number: number): object => ({ user: number, group: number, warning: undefined });
const status = (name: string, uid: string, gid: string, groups = ''): string =>
  `Name:\t${name}\nState:\tS (sleeping)\nUid:\t${uid}\nGid:\t${gid}\nGroups:\t${groups} \n`;

describe('fault N5: the data process is of', () => {
  it('a free number', () => expect(choose({})).resolves.toEqual(account(65_520)));

  it('the account of its name, with its group', async () => {
    const named = `${passwd}tartan-datapath:x:987:986:Data process:/:/usr/sbin/nologin\n`;
    await expect(choose({ '/etc/passwd': named })).resolves.toEqual({ user: 987, group: 986, warning: undefined });
    await expect(choose({ '/etc/passwd': named, '/etc/group': 'tartan-datapath:x:985:\n' })).resolves.toMatchObject({
      group: 985,
    });
  });

  it('no account that is root, or that is not in this user namespace', async () => {
    const root = `${passwd}tartan-datapath:x:0:0::/:/bin/sh\n`;
    const told = expect.stringContaining('the account tartan-datapath has user 0 and group 0');
    await expect(choose({ '/etc/passwd': root })).resolves.toEqual({ user: 65_520, group: 65_520, warning: told });
    const far = `${passwd}tartan-datapath:x:100987:100987::/:/bin/sh\n`;
    const map = '0 100000 65536\n';
    const files = { '/etc/passwd': far, '/proc/self/uid_map': map, '/proc/self/gid_map': map };
    await expect(choose(files)).resolves.toMatchObject({ user: 65_520 });
  });

  it('no number that a file or another program has', async () => {
    const files = {
      '/etc/passwd': `${passwd}a:x:65520:100::/:/bin/sh\nb:x:1000:65521::/:/bin/sh\n`,
      '/etc/group': 'c:x:65522:\n',
    };
    const processes = [
      status('sh', '65523\t65523\t65523\t65523', '100\t100\t100\t100'),
      status('sh', '1000\t1000\t1000\t1000', '65524\t65524\t65524\t65524'),
      status('sh', '1000\t65525\t65526\t1000', '100\t100\t100\t100', '20 65527'),
      status('tartan-datapath', '65528\t65528\t65528\t65528', '65528\t65528\t65528\t65528'),
      'Name:\tended',
    ];
    await expect(choose(files, processes)).resolves.toEqual(account(65_528));
  });

  it('nobody where all are taken, with a warning', async () => {
    const taken = Array.from({ length: 14 }, (_, i) => `u${i}:x:${65_520 + i}:100::/:/bin/sh\n`).join('');
    const warning = expect.stringMatching(/no number from 65520 to 65533 is free: .* make an account tartan-datapath/);
    await expect(choose({ '/etc/passwd': passwd + taken })).resolves.toEqual({ user: 65_534, group: 65_534, warning });
  });

  it('nobody else than root: refused, with what to do', async () => {
    const map = '         0       1000          1\n';
    await expect(choose({ '/proc/self/uid_map': map, '/proc/self/gid_map': map })).rejects.toThrow(
      expect.objectContaining({ code: 'PERMISSION', message: expect.stringContaining('map 65536 users and groups') }),
    );
  });
});
