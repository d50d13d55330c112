// deno run --allow-ffi examples/groups.ts

/** Who may send what to whom: a group of two virtual machines, one of which is out of favour. */

import { contextHandle, openVmci, VmciError } from "@vmci/vmci";

await using host = await openVmci({ contextId: 2 });
await using friend = await openVmci({ contextId: 16 });
await using foe = await openVmci({ contextId: 17 });
await using stranger = await openVmci({ contextId: 18 });

using endpoint = host.datagrams.create();
using group = host.access.createGroup();
group.add(friend.contextId);
group.add(foe.contextId);
host.access.addClientPrivileges(endpoint.handle, group.handle, { allow: ["DG_SEND"] });
host.access.addClientPrivileges(endpoint.handle, contextHandle(foe.contextId), { deny: ["DG_SEND"] });

for (const vm of [friend, foe, stranger]) {
  const { granted, via } = host.access.checkClientPrivilege(endpoint.handle, contextHandle(vm.contextId), "DG_SEND");
  try {
    vm.datagrams.sendTo(endpoint.handle, new Uint8Array(0));
    console.log(`VM ${vm.contextId} sends: ${granted} by ${via}`);
  } catch (error) {
    if (!(error instanceof VmciError)) throw error;
    console.log(`VM ${vm.contextId} does not: ${granted} by ${via}, ${error.code}`);
  }
}
