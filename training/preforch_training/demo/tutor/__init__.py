"""The tutor world: word problems in small numbers, solved step by step and told in many ways."""
