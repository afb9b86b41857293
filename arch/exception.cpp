// See exception.hpp.
//
// Layout     A thrown object stands behind the ABI's __cxa_exception, which begins with the type and the destructor and ends with
//            the unwinder's header; both implementations for Linux put their own counts before it. The type is compared with what
//            std::exception_ptr says before anything is believed.
#include "arch/exception.hpp"

#include <unwind.h>

#include <typeinfo>

namespace weft::arch {
namespace {

struct Header {
  std::type_info* type;
  void (*destroy)(void*);
  void (*unexpected)();
  void (*terminate)();
  Header* next;
  int handlers;
  int switch_value;
  const unsigned char* action;
  const unsigned char* data;
  void* catch_temp;
  void* adjusted;
  _Unwind_Exception unwind;
};

const std::type_info* type_of(const std::exception_ptr& e) {
#ifdef __GLIBCXX__
  return e.__cxa_exception_type();
#else
  (void)e;
  return nullptr;
#endif
}

}  // namespace

bool hook_exception_end(const std::exception_ptr& e, void (*hook)(void*), void (**destroy)(void*)) {
  const std::type_info* type = type_of(e);
  Header* h = static_cast<Header*>(exception_object(e)) - 1;
  if (!type || h->type != type) return false;
  *destroy = h->destroy;
  h->destroy = hook;
  return true;
}

}  // namespace weft::arch
