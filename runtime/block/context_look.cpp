// What is asked of a context: its end, its reason, its deadline, its values.
//
// Orders     see context_node.hpp and context.cpp.
#include "runtime/block/context_node.hpp"

#include <cstdio>
#include <typeinfo>
#include <vector>

#include <weft/panic.hpp>

namespace weft::detail {

Constants::Constants()
    : canceled(std::make_exception_ptr(std::system_error(Errc::canceled))),
      exceeded(std::make_exception_ptr(std::system_error(Errc::deadline_exceeded))),
      dropped(std::make_exception_ptr(std::system_error(Errc::canceled, "cancel function dropped"))) {
  Chan<void> c = make_chan<void>();
  c.close();
  closed = c;
}

Constants& constants() {
  static Constants* c = new Constants;
  return *c;
}

std::exception_ptr cause_of(const std::error_code& e) {
  if (!e) return nullptr;
  if (e == make_error_code(Errc::canceled)) return constants().canceled;
  if (e == make_error_code(Errc::deadline_exceeded)) return constants().exceeded;
  return std::make_exception_ptr(std::system_error(e));
}

const RecvChan<void>& context_done(const ContextHead* h) {
  const Node* p = nearest(node_of(h));
  if (p->kind == Kind::Custom) return custom_of(p)->done;
  if (!p->cancels()) return constants().nil;
  auto* n = const_cast<CancelNode*>(cancel_of(p));
  if (n->has_done.load(memory_order_acquire)) return n->done;  // [context-done]
  const RecvChan<void> fresh = make_chan<void>();  // not under the lock
  n->lock.lock();
  if (!peek(n->has_done)) {
    n->done = n->claimed ? constants().closed : fresh;
    n->has_done.store(true, memory_order_release);  // [context-done]
  }
  n->lock.unlock();
  return n->done;
}

std::error_code context_err(const ContextHead* h) {
  const Node* p = nearest(node_of(h));
  if (p->kind == Kind::Custom) return custom_of(p)->user->err();
  if (!p->cancels()) return {};
  const CancelNode* n = cancel_of(p);
  // Between the two halves of the announcement the closed channel alone says it.
  if (n->state.load(memory_order_acquire)) return n->error;  // [context]
  if (n->has_done.load(memory_order_acquire) && closed(n->done)) return n->error;  // [context-done]
  return {};
}

std::exception_ptr context_cause(const ContextHead* h) {
  const Node* p = nearest(node_of(h));
  if (p->kind == Kind::Custom) return custom_of(p)->user->cause();
  const std::error_code e = context_err(p);
  if (!e) return nullptr;
  const CancelNode* n = cancel_of(p);
  return n->cause ? n->cause : cause_of(e);
}

std::optional<Time> context_deadline(const ContextHead* h) {
  for (const Node* n = node_of(h); n; n = n->parent) {
    if (n->kind == Kind::Deadline) return Time{Clock::duration(static_cast<const DeadlineNode*>(cancel_of(n))->deadline)};
    if (n->kind == Kind::Custom) return custom_of(n)->user->deadline();
    if (n->kind == Kind::WithoutCancel) break;
  }
  return std::nullopt;
}

const void* context_value(const ContextHead* h, const ContextKeyBase& key) {
  for (const Node* n = node_of(h); n; n = n->parent) {
    if (n->kind == Kind::Value && &value_of(n)->key == &key) return value_of(n)->value.get();
    if (n->kind == Kind::Custom) return custom_of(n)->user->value(key);
  }
  return nullptr;
}

std::string context_text(const ContextHead* h) {
  std::vector<const Node*> line;
  for (const Node* n = node_of(h); n; n = n->parent) line.push_back(n);
  std::string text;
  for (auto at = line.rbegin(); at != line.rend(); ++at) {
    const Node* n = *at;
    switch (n->kind) {
      case Kind::Background: text += "context.Background"; break;
      case Kind::Todo: text += "context.TODO"; break;
      case Kind::Value:
        text += std::string(".WithValue(") + value_of(n)->key.name + ", ";
        text += value_of(n)->text.data() ? std::string(value_of(n)->text) : "<not a string>";
        text += ")";
        break;
      case Kind::WithoutCancel: text += ".WithoutCancel"; break;
      case Kind::Custom: {
        const CustomContext& user = *custom_of(n)->user;
        text += describe_unknown(typeid(user));
        break;
      }
      case Kind::Cancel: text += ".WithCancel"; break;
      case Kind::Deadline: {
        const std::int64_t left = static_cast<const DeadlineNode*>(cancel_of(n))->deadline - arch::clock_now();
        char t[48];
        std::snprintf(t, sizeof t, ".WithDeadline([%.3gs])", static_cast<double>(left) / 1e9);
        text += t;
        break;
      }
    }
  }
  return text;
}

}  // namespace weft::detail

namespace weft {

const Context& background() {
  static const auto* c = [] {
    detail::Node& n = detail::constants().background;
    n.refs.fetch_add(1, std::memory_order_relaxed);
    return new Context(detail::ContextRef(&n));
  }();
  return *c;
}

const Context& todo() {
  static const auto* c = [] {
    detail::Node& n = detail::constants().todo;
    n.refs.fetch_add(1, std::memory_order_relaxed);
    return new Context(detail::ContextRef(&n));
  }();
  return *c;
}

CustomContext::CustomContext() : inner_(background()) {}

std::exception_ptr CustomContext::cause() const {
  if (std::exception_ptr own = inner_.cause()) return own;
  return detail::cause_of(err());
}

}  // namespace weft
