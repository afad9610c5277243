class AddAuthor < ActiveRecord::Migration[6.1]
  def change
    add_column :books, :author, :string, default: "nobody"
    add_index :books, :author
  end
end
