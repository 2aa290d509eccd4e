/** Knows when this program lies where tartand.service cannot start it: systemd then says 203/EXEC and no reason. */
import { fileURLToPath } from 'node:url';

/** What ProtectHome= of systemd.exec(5) hides. */
const hidden = ['/root/', '/home/', '/run/user/'];

/** @returns undefined where the unit can start it */
export function describeHiddenPlace(path = fileURLToPath(import.meta.url)): string | undefined {
  const home = hidden.find(folder => path.startsWith(folder));
  if (home === undefined) return undefined;
  return (
    `this program lies below ${home.slice(0, -1)}, which tartand.service cannot see (ProtectHome=, status 203/EXEC): ` +
    'for the unit install it elsewhere, such as in /opt/tartan'
  );
}
