// Who computes without coming to a safepoint: Config::on_overrun and WEFT_DEBUG=hogs.
#pragma once

namespace weft::rt {

void hogs_install(bool wanted);
void hogs_remove();

}  // namespace weft::rt
