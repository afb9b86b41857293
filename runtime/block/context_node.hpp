// The nodes of the context tree: see context.cpp.
//
// Orders     [context] [context-done] [context-ref] see context.cpp; [chan-closed] see chan.cpp.
#pragma once

#include <exception>
#include <memory>

#include "runtime/block/chan.hpp"
#include "runtime/block/context.hpp"

namespace weft::detail {

using namespace rt;

enum class Kind : std::uint8_t { Background, Todo, Value, WithoutCancel, Custom, Cancel, Deadline };

struct Node : ContextHead {
  const Kind kind;
  Node* const parent;  // counted; null: a root
  Node(Kind k, Node* p) : ContextHead(k <= Kind::Todo), kind(k), parent(p) {
    if (p) p->refs.fetch_add(1, memory_order_relaxed);
  }
  bool cancels() const { return kind >= Kind::Cancel; }
};

struct CancelNode;

/// An entry of a cancellable context's list. The links and `listed` under that context's lock.
struct Dependent {
  Dependent* next = nullptr;
  Dependent* prev = nullptr;
  CancelNode* of = nullptr;  // with whom it is registered; written before it is shared
  bool listed = false;
  const bool is_func;
  explicit Dependent(bool func) : is_func(func) {}
};

struct ValueNode : Node {
  const ContextKeyBase& key;
  std::shared_ptr<const void> value;
  std::string_view text;  // of a value that is text; points into it
  ValueNode(Node* p, const ContextKeyBase& k, std::shared_ptr<const void> v, std::string_view t)
      : Node(Kind::Value, p), key(k), value(std::move(v)), text(t) {}
};

struct CustomNode : Node {
  std::shared_ptr<CustomContext> user;
  RecvChan<void> done;
  explicit CustomNode(std::shared_ptr<CustomContext> u) : Node(Kind::Custom, nullptr), user(std::move(u)) {
    done = user->done();
  }
};

struct CancelNode : Node, Dependent, CancelSource {  // CancelSource::over follows the announcement
  bool claimed = false;  // under lock; for good
  // Written by the claim, read after it.
  std::error_code error;
  std::exception_ptr cause;  // null: the error's own
  Dependent* first = nullptr;
  std::atomic<bool> state{false};      // announced
  std::atomic<bool> settled{false};    // so are all descendants
  std::atomic<bool> has_done{false};
  std::atomic<bool> detached{false};
  bool counted_of = false;             // `of` is not an ancestor, and is held
  std::atomic<std::int32_t> handles{0};  // of CancelFuncs
  RecvChan<void> done;                   // under lock until has_done
  CancelNode* walk_next = nullptr;       // of whose walk it is
  std::unique_ptr<std::function<bool()>> foreign_stop;  // of a custom parent's after_func
  CancelNode(Node* p, Kind k) : Node(k, p), Dependent(false) {}
};

struct DeadlineNode;

struct DeadlineTimer : TimerNode {
  DeadlineNode* owner = nullptr;
};

struct DeadlineNode : CancelNode {
  std::int64_t deadline;
  std::exception_ptr timer_cause;
  DeadlineTimer timer;
  DeadlineNode(Node* p, std::int64_t d, std::exception_ptr c)
      : CancelNode(p, Kind::Deadline), deadline(d), timer_cause(std::move(c)) {}
};

inline Node* node_of(ContextHead* h) { return static_cast<Node*>(h); }
inline const Node* node_of(const ContextHead* h) { return static_cast<const Node*>(h); }
inline CancelNode* cancel_of(Node* n) { return static_cast<CancelNode*>(n); }
inline const CancelNode* cancel_of(const Node* n) { return static_cast<const CancelNode*>(n); }
inline DeadlineNode* deadline_of(CancelNode* n) { return static_cast<DeadlineNode*>(n); }
inline CustomNode* custom_of(Node* n) { return static_cast<CustomNode*>(n); }
inline const CustomNode* custom_of(const Node* n) { return static_cast<const CustomNode*>(n); }
inline const ValueNode* value_of(const Node* n) { return static_cast<const ValueNode*>(n); }

/// Its own, or that of the context that it gets its end from; null: it never ends (custom ones are not looked into).
template <class N>
N* nearest(N* n) {
  while (n && (n->kind == Kind::Value)) n = n->parent;
  return n;
}

struct Constants {
  Node background{Kind::Background, nullptr};
  Node todo{Kind::Todo, nullptr};
  RecvChan<void> nil;
  RecvChan<void> closed;
  std::exception_ptr canceled, exceeded, dropped;
  Constants();
};
/// Never destroyed: contexts may be used by static destructors.
Constants& constants();

/// What stands for an error without a cause of its own; null for none.
std::exception_ptr cause_of(const std::error_code& e);

inline bool closed(const RecvChan<void>& c) {
  return core_of(c.head())->closed.load(memory_order_acquire);  // [chan-closed]
}

}  // namespace weft::detail
