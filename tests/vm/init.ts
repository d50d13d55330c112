/**
 * What runs in the guest: the first process, and the script it starts the command with.
 *
 * The guest has four serial lines: the kernel's log, the command's output, its exit code, and a tar of /out.
 *
 * @module
 */

/** The word on the kernel's command line by which a program knows that it is in such a guest. */
export const GUEST_WORD = "vmci.guest";

/** The first process, for busybox. */
export const INIT = `#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B mkdir -p /dev/shm /dev/pts
$B mount -t tmpfs -o mode=1777 shm /dev/shm; $B mount -t tmpfs -o mode=1777 tmp /tmp; $B mount -t devpts pts /dev/pts
$B --install -s /bin
export PATH=/bin:/usr/bin:/sbin HOME=/root DENO_NO_UPDATE_CHECK=1 NO_COLOR=1
log() { read UP _ < /proc/uptime; echo "guest: $1 at $UP s"; }
log "first process"
for word in $(cat /proc/cmdline); do case $word in vmci.modules=*) MODULES=\${word#*=};; esac; done
IFS=,; for module in $MODULES; do insmod /lib/modules/$module.ko || log "no module $module"; done; unset IFS
ip link set lo up
for line in 1 2 3; do stty -F /dev/ttyS$line raw -echo; done
log "command"
# Through a pipe, for programs write otherwise to a terminal.
{ sh /.command; echo $? > /.code; } </dev/null 2>&1 | cat > /dev/ttyS1; CODE=$(cat /.code)
log "end of the command, $CODE, $(grep MemAvailable /proc/meminfo)"
[ -n "$(ls -A /out)" ] && tar -c -f - -C /out . | gzip -1 > /dev/ttyS3
echo $CODE > /dev/ttyS2
sync; poweroff -f
`;

/** Users of the guest, by name; \`id\` is also their group. */
export const USERS: readonly { readonly name: string; readonly id: number }[] = [
  { name: "root", id: 0 },
  { name: "one", id: 1001 },
  { name: "two", id: 1002 },
  { name: "nobody", id: 65534 },
];

/**
 * The script that runs the command.
 *
 * @param command The command and its arguments.
 * @param environment Its variables.
 * @param user Whose process it is, by name.
 * @returns The script.
 */
export function commandScript(
  command: readonly string[],
  environment: ReadonlyMap<string, string>,
  user: string,
): string {
  const exports = [["DENO_DIR", `/tmp/deno-${user}`], ...environment]
    .map(([name, value]) => `export ${name}=${quoted(value!)}\n`);
  const words = command.map(quoted).join(" ");
  const run = user === "root" ? words : `su -s /bin/sh ${user} -c ${quoted(`exec ${words}`)}`;
  return `cd /app\n${exports.join("")}exec ${run}\n`;
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
